import pytest
from typer.testing import CliRunner

from pfmsmt.commands.compare import comparison_text
from pfmsmt.commands.main import app
from pfmsmt.config import load_config
from pfmsmt.core.layout import SCHEMA
from pfmsmt.data.schema import read_schema
from pfmsmt.tracking import connect


def assert_readable(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("\nERROR: ")
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


@pytest.mark.slow(4)
def test_show_prints_the_table_and_the_next_commands(finished_project, run_python):
    done = run_python("-m", "pfmsmt.commands.main", "show")
    assert done.returncode == 0, done.stderr
    assert done.stdout == comparison_text(load_config(), read_schema(SCHEMA), finished_project) + "\n"
    assert "make serve  " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


@pytest.mark.slow(1)
def test_show_before_anything_ran(project, run_python):
    assert_readable(
        run_python("-m", "pfmsmt.commands.main", "show"), "metrics.json does not exist; run `dvc repro evaluate` first"
    )


def test_links(project):
    done = CliRunner().invoke(app, ["ui", "--links-only", "--port", "5123"])
    assert done.exit_code == 0
    assert "http://127.0.0.1:5123/#/experiments/" in done.output
    assert "compareRunsMode=CHART" in done.output


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["shwo"], 2), (["ui", "--port", "0"], 2)])
def test_words(words, code):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code
    assert "Usage" in done.output


@pytest.mark.slow(2)
def test_errors_are_readable_unless_asked(project, run_python):
    (project / "params.yaml").write_text("seed: [1")
    assert_readable(run_python("-m", "pfmsmt.commands.main", "show"), "params.yaml is not valid YAML")
    done = run_python("-m", "pfmsmt.commands.main", "--debug", "show")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_under_mlflow_run_its_run_has_a_name_though_no_stage_runs(project, run_python):
    tracking = connect(project)
    launcher = tracking.client.create_run("0").info.run_id
    run_python("-m", "pfmsmt", "repro", "no-such-stage", MLFLOW_RUN_ID=launcher)
    found = tracking.client.get_run(launcher)
    assert (found.info.run_name, found.data.tags["role"]) == ("pipeline", "launcher")
