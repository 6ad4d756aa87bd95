"""Epsilon against the exact curve of the Gaussian mechanism (Balle and Wang 2018), which opacus does not use."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from pfmsmt.core.errors import ConfigError
from pfmsmt.training import privacy
from pfmsmt.training.privacy import check_accountant, epsilon, spent


def exact(noise, releases, delta):
    """k uploads with noise z are one with noise z / sqrt(k), whose epsilon at delta is known."""
    mu = np.sqrt(releases) / noise

    def over(e):
        return norm.cdf(mu / 2 - e / mu) - np.exp(e + norm.logcdf(-mu / 2 - e / mu)) - delta

    return brentq(over, 0, 50 * mu * (mu + 10)) if over(0) > 0 else 0.0


@pytest.mark.slow(0.1)
@pytest.mark.filterwarnings("error")  # opacus's, of orders that end too early
@pytest.mark.parametrize("noise", [0.001, 0.5, 1.0, 5.0, 50.0, 10_000.0])
@pytest.mark.parametrize("releases", [1, 40, 400])
@pytest.mark.parametrize("delta", [1e-3, 1e-7])
def test_epsilon_is_above_the_exact_one_and_near_it(noise, releases, delta):
    found, least = epsilon(noise, releases, delta), exact(noise, releases, delta)
    assert least <= found <= 1.35 * least + 0.01


def test_a_rounds_metrics_get_each_clients_epsilon_and_the_largest(make_config):
    settings = make_config({"privacy.clip": 1.0, "privacy.noise": 2.0, "privacy.delta": 1e-4}).privacy
    found = spent({"privacy/NL/releases": 6.0, "privacy/ES/releases": 4.0, "server/seconds": 1.0}, settings)
    assert found == {
        "privacy/NL/epsilon": epsilon(2.0, 6, 1e-4), "privacy/ES/epsilon": epsilon(2.0, 4, 1e-4),
        "privacy/epsilon": epsilon(2.0, 6, 1e-4),
    }  # fmt: skip
    assert found["privacy/NL/epsilon"] > found["privacy/ES/epsilon"] > 0
    assert spent({"server/seconds": 1.0}, settings) == {}


def test_without_opacus_noise_is_refused_before_training(make_config, monkeypatch):
    monkeypatch.setattr(privacy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"privacy.noise needs opacus.*pip install 'pfmsmt\[privacy\]'"):
        check_accountant(make_config({"privacy.clip": 1.0, "privacy.noise": 2.0}).privacy)
    check_accountant(make_config({"privacy.clip": 1.0}).privacy)


def test_noise_without_clipping_is_refused(make_config):
    with pytest.raises(ConfigError, match="privacy: noise is in multiples of clip, which is null"):
        make_config({"privacy.noise": 1.0})
