"""The same federation across machines, on Flower: one site per scenario. The only package that imports flwr.

`server_app.py` runs the driver of `rounds.py` through an exchange over Flower's Grid (`exchange.py`); `client_app.py`
answers one message at a site (`site.py`). `wire.py` says how requests and answers look on the way.
"""
