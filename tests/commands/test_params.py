"""`pfmsmt params`: what it prints."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pfmsmt.commands.main import app
from pfmsmt.config.reference import reference, reference_page
from pfmsmt.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


def call(*words):
    return CliRunner().invoke(app, ["params", *words], catch_exceptions=False)


def test_show_prints_keys_with_their_present_values(project, configure):
    configure({"train.rounds": 9, "methods.ditto.learning_rate": 0.3, "tune.trials": 4})
    lines = call("show", "train").output.splitlines()
    at = lines.index("train.rounds = 9")
    assert lines[at + 1 : at + 3] == [
        "    Communication rounds of a training.",
        "    value: whole number, >= 1; default: 60",
    ]
    assert not any(line.startswith("model.") for line in lines)
    everything = call("show").output.splitlines()
    shown = [line.partition(" = ")[0] for line in everything if not line.startswith(" ")]
    assert shown == [setting.key for setting in reference()]
    assert "methods.ditto.learning_rate = 0.3" in everything
    assert "tune.trials = 4" in everything


def test_an_unknown_key_names_the_nearest(project):
    with pytest.raises(ConfigError, match=r"did you mean 'train\.rounds'"):
        call("show", "train.round")


def test_the_page_is_that_of_the_documentation(project):
    assert call("show", "--markdown").output == reference_page()
    assert call("show", "train", "--markdown").exit_code == 2


@pytest.mark.slow(1)
def test_upgrade_says_line_by_line_what_it_changed(tmp_path):
    path = shutil.copy(ROOT / "tests/support/params-0.1.0.yaml", tmp_path / "params.yaml")
    done = call("upgrade", "--file", str(path)).output.splitlines()
    assert "train.device: now run.device" in done
    assert done[-2:] == ["tune: moved to tune.yaml", f"{path} is rewritten, and trains as before"]
    assert call("upgrade", "--file", str(path)).output == f"{path} is current; nothing was changed\n"
    assert "run.device = auto" in call("show", "run", "--file", str(path)).output
