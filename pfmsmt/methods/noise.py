"""Client-level differential privacy: every upload is clipped and noised by its client.

By the Gaussian mechanism:

    u_k  <-  (w_k - received, each task's share)          all tensors of the upload as one vector
    sent <-  u_k min(1, C / |u_k|) + noise C N(0, I)      C: privacy.clip, noise: privacy.noise

An upload then depends on a client's rows by a vector of length C at most, which noise of standard deviation noise C
hides: what one upload reveals is bounded, and an accountant adds it up over uploads (`pfmsmt.training.privacy`). As in
DP-FedAvg (McMahan et al. 2018), but for the place of the noise: the server looks at each upload alone, so noise on
sums would hide nothing from it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pfmsmt.core import arrays
from pfmsmt.core.types import RUNNING_VARIANCE, FloatArray, NamedArrays, Stream
from pfmsmt.methods import ClientState, Method, Phase, Upload

Entropy = Callable[[Stream], Callable[[int], bytes]]
"""stream -> a source of random bytes for that one upload"""


def seeded(stream: Stream) -> Callable[[int], bytes]:
    """Draw noise from (seed, client, round), as all else: for simulations.

    Whoever knows the seed can take the noise off again.
    """
    return stream.generator("noise").bytes


def noised(method: Method, *, clip: float, noise: float, entropy: Entropy) -> Method:
    """Return the method with uploads clipped and noised.

    Args:
        method: any; its server side stays as it is.
        clip: C, the longest that an upload's change may be; > 0.
        noise: standard deviation of the noise, in multiples of C; 0 only clips.
        entropy: where noise comes from.
    """
    count = len(method.phases)
    phases = tuple(_noised_phase(phase, count, clip, noise, entropy) if phase.uploads else phase
                   for phase in method.phases)  # fmt: skip
    return method._replace(phases=phases)


def _noised_phase(phase: Phase, phases: int, clip: float, noise: float, entropy: Entropy) -> Phase:
    def client_update(
        received: NamedArrays, state: ClientState, data: Any, stream: Stream
    ) -> tuple[Upload, ClientState]:
        upload, after = phase.client_update(received, state, data, stream)
        start = {name: received[name] for name in upload.arrays}
        parts = [arrays.subtract(upload.arrays, start), *upload.by_task.values()]
        length = math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for part in parts for a in part.values()))
        shrink = min(1.0, clip / length) if length else 1.0
        read = entropy(stream)
        changes, *shares = (
            {name: _noise(array, shrink, noise * clip, read) for name, array in part.items()} for part in parts
        )
        sent = arrays.combine([start, changes], [1.0, 1.0])
        # No mechanism is spoilt by what is done to its answer; a running variance below zero would be no number later.
        sent |= {n: np.maximum(a, 0) for n, a in sent.items() if n.endswith(RUNNING_VARIANCE)}
        releases = (stream.round - 1) * phases + stream.phase + 1 if noise else 0
        by_task = dict(zip(upload.by_task, shares, strict=True))
        return upload._replace(arrays=sent, by_task=by_task, releases=releases), after

    return phase._replace(client_update=client_update)


def _noise(array: FloatArray, shrink: float, deviation: float, read: Callable[[int], bytes]) -> FloatArray:
    smaller = array * array.dtype.type(shrink)
    if not deviation:
        return smaller
    return (smaller + deviation * gaussian(array.size, read).reshape(array.shape)).astype(array.dtype)


def gaussian(count: int, read: Callable[[int], bytes]) -> FloatArray:
    """Return standard normal numbers [count] from random bytes, by inversion.

    None is beyond 8.3.
    """
    # Not at the top: every command looks through the modules of this room, and few add noise.
    from scipy.special import ndtri

    bits = np.frombuffer(read(8 * count), np.uint64) >> np.uint64(12)
    # 52 bits and a half lie between 0 and 1, and meet neither.
    normal: FloatArray = ndtri((bits + 0.5) * 2.0**-52)
    return normal
