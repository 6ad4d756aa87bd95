"""What params.yaml wants done to the messages of a method, whichever it is."""

from pfmsmt.config import Train
from pfmsmt.methods import Method
from pfmsmt.methods.half_precision import half_precision
from pfmsmt.methods.noised import Entropy, noised, seeded
from pfmsmt.types import Template


def with_messages(method: Method, template: Template, train: Train, entropy: Entropy = seeded) -> Method:
    """Return the method with uploads clipped, noised and shortened as `train` says; as it is by default.

    Args:
        method: as its own file builds it.
        template: roles of all tensors.
        train: `clip`, `noise` and `wire`.
        entropy: where noise comes from; at a site, which keeps it secret, not from the seed.
    """
    if train.clip is not None:
        method = noised(method, clip=train.clip, noise=train.noise, entropy=entropy)
    # Last, as rounding noised numbers tells nothing new.
    return half_precision(method, template) if train.wire == "float16" else method
