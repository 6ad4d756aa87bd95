import pytest
import torch

from pfmsmt.core.errors import ConfigError, DataError, TrainingError
from pfmsmt.tuning.trials import FailureStreak, cause_of


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (TrainingError("round 2: 1 clients answered, the quorum is 2. ES: MemoryError: "), "out of memory"),
        (TrainingError("round 3, client NL: the training loss became nan; lower"), "training diverged"),
        (TrainingError("round 1, client ES: upload 'tower/ctr' is not finite"), "training diverged"),
        (TrainingError("scenario NL: a predicted probability is nan; lower"), "training diverged"),
        (TrainingError("round 2: 1 clients answered, the quorum is 2. ES: KeyError: 'a'"), "training could not go on"),
        (ConfigError("rank"), "values that do not go together"),
        (DataError("x"), "unreadable data"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError"),
    ],
)
def test_causes(error, cause):
    assert cause_of(error) == cause


def test_five_in_a_row_end_the_search_and_name_the_common_cause():
    streak = FailureStreak()
    for number in range(4):
        assert streak.add_failure("training diverged", f"loss {number}") is None
    streak.add_success()
    for cause in ("out of memory", "training diverged", "out of memory", "training diverged"):
        assert streak.add_failure(cause, f"of {cause}") is None
    text = streak.add_failure("out of memory", "the last of them")
    assert text == "5 trials in a row failed; common cause: out of memory (3 of 5). The last one: the last of them"


def test_five_causes_are_all_named():
    streak = FailureStreak()
    for number in range(4):
        assert streak.add_failure(f"cause {number}", "why") is None
    text = streak.add_failure("cause 4", "why")
    assert "each for another cause" in text
    assert all(f"cause {number}: why" in text for number in range(5))
