"""The same federation across machines, on Flower: one site per scenario.

The only package that imports flwr.

`server/` runs the driver of `pfmsmt.training` over sites: `server_app.py` is Flower's ServerApp, `participants.py` the
federation that the driver sees, `grid.py` its exchange, `nodes.py` the sites that are connected, `acceptance.py` the
checks of their answers, `agree.py` the agreement on the schema. `site/` answers one message at a site:
`client_app.py` is Flower's ClientApp, `state.py` the client between messages, `prepare.py` its data, `site_models.py`
its model. `plan.py` is what a run computes, sent with every message; `wire.py` is how messages look on the way.
`operate/` starts Flower's programs, registers sites, and shows a whole federation on one machine.
"""
