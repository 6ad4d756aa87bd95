import optuna
import pytest

from pfmsmt.tuning.sampling import SeededTPE, build_pruner, draw, initial_draw, values_of
from pfmsmt.tuning.space import space_of
from pfmsmt.tuning.worker import silence_optuna

SPACE = {
    "model.dropout": {"type": "float", "low": 0.1, "high": 0.6},
    "model.experts": {"type": "int", "low": 1, "high": 64, "log": True},
    "model.expert_layers": {"type": "categorical", "choices": [[6, 4], [12, 4], [6, 6]]},
    "methods.pf_msmtrec.federated_batch_norm": {"type": "categorical", "choices": [True, False]},
    "methods.pf_msmtrec.gate": {"type": "categorical", "choices": ["private", "federated"]},
    "methods.pf_msmtrec.learning_rate": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
}


@pytest.fixture
def config(make_config):
    silence_optuna()
    return make_config({"tune.space": SPACE})


def search(config, *sessions, seed=0):
    """Trials of one study that is run in several sessions, with an objective in closed form."""
    space = space_of(config, "pf_msmtrec")
    study = optuna.create_study(direction="maximize")
    drawn = []

    def objective(trial):
        drawn.append(draw(trial, space))
        value = drawn[-1]
        return -((value["model.dropout"] - 0.3) ** 2) - 0.01 * value["model.experts"]

    for trials in sessions:
        study.sampler = SeededTPE(seed)
        study.optimize(objective, n_trials=trials)
    return drawn


def test_a_study_in_two_sessions_draws_what_one_session_draws(config):
    whole = search(config, 14)
    assert search(config, 3, 7, 4) == whole
    assert search(config, 14, seed=1) != whole
    assert len({str(values) for values in whole}) == 14


def test_what_is_drawn_is_short_in_range_and_of_the_right_type(config):
    for values in search(config, 14):
        for key in ("model.dropout", "methods.pf_msmtrec.learning_rate"):
            assert values[key] == float(f"{values[key]:.4g}")
            assert SPACE[key]["low"] <= values[key] <= SPACE[key]["high"]
        assert type(values["model.experts"]) is int
        assert values["model.expert_layers"] in SPACE["model.expert_layers"]["choices"]
        assert type(values["methods.pf_msmtrec.federated_batch_norm"]) is bool


def test_the_start_is_what_params_has_or_the_nearest(make_config):
    config = make_config({"tune.space": SPACE, "model.dropout": 0.7, "model.experts": 2, "model.expert_layers": [9, 9]})
    space = space_of(config, "pf_msmtrec")
    drawn, outside = initial_draw(config, space)
    assert drawn == {
        "model.dropout": 0.6,
        "model.experts": 2,
        "methods.pf_msmtrec.federated_batch_norm": True,
        "methods.pf_msmtrec.gate": "federated",
        "methods.pf_msmtrec.learning_rate": config.methods.pf_msmtrec.learning_rate,
    }
    assert outside == ["model.dropout", "model.expert_layers"]
    inside, outside = initial_draw(make_config({"tune.space": SPACE}), space)
    assert inside["model.expert_layers"] == "[6, 4]"
    assert values_of(inside, space)["model.expert_layers"] == [6, 4]
    assert outside == []


def pruned_after(name, values, rounds, earlier):
    """The round after which a pruner ends a trial with these values, after some complete ones."""
    study = optuna.create_study(direction="maximize", pruner=build_pruner(name, rounds))
    for others in earlier:
        trial = study.ask()
        for number, value in enumerate(others, start=1):
            trial.report(value, number)
            trial.should_prune()  # takes note of rungs
        study.tell(trial, max(others))
    trial = study.ask()
    for number, value in enumerate(values, start=1):
        trial.report(value, number)
        if trial.should_prune():
            return number
    return None


@pytest.mark.parametrize(
    ("name", "complete", "expected"),
    # Median: the first fifth of 10 rounds, and the first five trials, are left alone. Halving: rungs at 1, 3, 9.
    [("median", 5, 3), ("median", 4, None), ("successive_halving", 5, 1), ("none", 5, None)],
)
def test_pruners(name, complete, expected):
    better = [[0.6 + 0.01 * trial] * 10 for trial in range(complete)]
    assert pruned_after(name, [0.5] * 10, 10, better) == expected
    assert pruned_after(name, [0.9] * 10, 10, better) is None
