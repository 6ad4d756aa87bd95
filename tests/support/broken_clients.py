"""Clients that fail where a test wants them to."""

from pfmsmt.training.client import Client


def broken_in(federation, client, *, rounds, phase=0):
    """One client's local training raises in some rounds of one phase, at the client."""

    def wrap(index, update):
        def client_update(received, state, data, stream):
            if index == phase and stream.round in rounds:
                raise OSError("the disk of this site is gone")
            return update(received, state, data, stream)

        return client_update

    phases = tuple(p._replace(client_update=wrap(i, p.client_update)) for i, p in enumerate(federation.method.phases))
    broken = Client(client, federation.method._replace(phases=phases), federation.clients[client].learner, 0)
    return federation._replace(clients={**federation.clients, client: broken})
