"""The outcome of a study in which other machines take part."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from pfmsmt.config import PARAMS_FILE, load_config
from pfmsmt.core.errors import TuningError
from pfmsmt.tuning.outcome import outcome_of, table
from pfmsmt.tuning.space import space_of
from pfmsmt.tuning.trials import OUTSIDE, START
from pfmsmt.tuning.worker import silence_optuna

KEY = "methods.local.learning_rate"


def trial(state, value=None, rate=0.01, **attributes):
    distribution = FloatDistribution(1e-4, 1.0, log=True)
    return create_trial(
        state=state, value=value, params={KEY: rate}, distributions={KEY: distribution}, user_attrs=attributes
    )


@pytest.fixture
def config():
    silence_optuna()
    return load_config(Path(__file__).parents[2] / PARAMS_FILE)


def test_what_still_runs_elsewhere_is_counted(config):
    study = optuna.create_study(study_name="s-local", direction="maximize")
    study.set_user_attr(OUTSIDE, [])
    study.add_trial(trial(TrialState.COMPLETE, 0.5, **{START: True}))
    study.add_trial(trial(TrialState.COMPLETE, 0.75, rate=0.02))
    study.add_trial(trial(TrialState.RUNNING))
    found = outcome_of(study, config, "local", {KEY: space_of(config, "local")[KEY]})
    assert (found.states["complete"], found.elsewhere) == (2, 1)
    assert (found.start_value, found.best_value, found.best_trial, dict(found.best)) == (0.5, 0.75, 1, {KEY: 0.02})
    text = table([found])
    assert "s-local: 2 complete, 1 still running elsewhere; the best is trial 1\n" in text
    assert text.endswith("--resume then runs its trials again")
    study.tell(2, state=TrialState.FAIL)
    assert "elsewhere" not in table([outcome_of(study, config, "local", {KEY: space_of(config, "local")[KEY]})])


def test_without_a_complete_trial_there_is_no_best(config):
    study = optuna.create_study(study_name="s-local", direction="maximize")
    study.add_trial(trial(TrialState.PRUNED))
    with pytest.raises(TuningError, match="study s-local: no trial is complete"):
        outcome_of(study, config, "local", space_of(config, "local"))
