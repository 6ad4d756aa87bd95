"""The privacy spent by noised uploads: epsilon at a given delta.

Computed by opacus's accountant. Of two worlds, one with a client's rows and one in which it has none to learn from (its
change is zero), whoever sees its uploads can say which by a factor of e^epsilon at most, but for a probability of
delta. Every upload is one Gaussian mechanism, none is drawn by chance (q = 1), and Renyi's divergences add up over
uploads (Mironov 2017).
"""

import importlib.util
from collections.abc import Mapping

import numpy as np

from pfmsmt.config import Privacy
from pfmsmt.core.errors import ConfigError
from pfmsmt.training.rounds import RELEASES

# From 1.000001 to ten million: large epsilons are tightest near 1, small ones far from it.
_ORDERS = (1 + np.logspace(-6, 7, 750)).tolist()


def check_accountant(privacy: Privacy) -> None:
    """Refuse noise that nobody could account for.

    Raises:
        ConfigError: opacus is not installed.
    """
    if privacy.noise and importlib.util.find_spec("opacus") is None:
        raise ConfigError("privacy.noise needs opacus, which counts what uploads reveal: pip install 'pfmsmt[privacy]'")


def epsilon(noise: float, releases: int, delta: float) -> float:
    """Return epsilon of `releases` uploads of one client.

    It is 0 where delta alone covers all that they reveal.

    Args:
        noise: standard deviation of the noise, in multiples of the clipping length; > 0.
        releases: uploads so far, those of repeated rounds included.
        delta: probability with which the bound may fail.
    """
    # Not at the top: it takes seconds, and most runs have no noise.
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    divergences = compute_rdp(q=1.0, noise_multiplier=noise, steps=releases, orders=_ORDERS)
    # Where delta alone covers all that is revealed, the conversion from Renyi's divergence falls below 0.
    return max(0.0, float(get_privacy_spent(orders=_ORDERS, rdp=divergences, delta=delta)[0]))


def spent(metrics: Mapping[str, float], privacy: Privacy) -> dict[str, float]:
    """Return the epsilons of a round, from its metrics.

    Args:
        metrics: with `privacy/<client>/releases` of every client that answered with noise.
        privacy: `noise` and `delta`.

    Returns:
        `privacy/<client>/epsilon`, and the largest of them as `privacy/epsilon`; nothing where there is no noise.
    """
    releases = {key.removesuffix(RELEASES): round(v) for key, v in metrics.items() if key.endswith(RELEASES)}
    found = {f"{place}/epsilon": epsilon(privacy.noise, count, privacy.delta) for place, count in releases.items()}
    return {**found, "privacy/epsilon": max(found.values())} if found else {}
