"""Sites that fail or answer wrongly at one step of a run, over an `InProcessGrid`."""

from flwr.app import Array, ArrayRecord, Error, Message

from pfmsmt.flower.site.client_app import client_app
from pfmsmt.flower.wire import read_request

CHANGES = {"federate.rounds": 2, "federate.local_epochs": 0.25, "federate.deadline": 0.3}
ALL = {"ES", "NL", "US"}


def step(message):
    """Kind, round and phase of a request; None of the question at the end."""
    request = read_request(message.content).request
    return request and (request.kind, request.round, request.phase)


def at(site, when, act):
    """Let `act` answer for a site at one step."""
    return lambda name, message: act(message) if (name, step(message)) == (site, when) else None


def final(grid):
    """Each site's last download, to be validated."""
    found = [(m.site, read_request(m.content).request) for m in grid.passed if m.direction == "down"]
    return {site: request.arrays for site, request in found if request and request.kind == "validate"}


def raises(message):
    return Message(Error(2, "<class 'OSError'>:<'disk gone'>"), reply_to=message)


def with_arrays(change):
    """Let the site answer, then change what it uploads."""

    def act(grid, site, message):
        node = next(n for n in grid.contexts if grid.site(n) == site)
        reply = client_app(message, grid.contexts[node])
        found = {name: array.numpy().copy() for name, array in reply.content["arrays"].items()}
        change(found)
        reply.content["arrays"] = ArrayRecord({name: Array(array) for name, array in found.items()})
        return reply

    return act
