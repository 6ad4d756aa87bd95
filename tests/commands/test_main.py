import pytest
from typer.testing import CliRunner

from pfmsmt.commands.compare import comparison_text
from pfmsmt.commands.main import app


def assert_readable(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("\nERROR: ")
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


def test_show_prints_the_table_and_the_next_commands(project, configure, train_all, run_python):
    config = configure({"train.methods": ["local"]})
    train_all(config, "compare")
    done = run_python("-m", "pfmsmt.commands.main", "show")
    assert done.returncode == 0, done.stderr
    from pfmsmt.core.layout import SCHEMA
    from pfmsmt.data.schema import read_schema

    assert done.stdout == comparison_text(config, read_schema(SCHEMA), project) + "\n"
    assert "make serve  " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


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


def test_errors_are_readable_unless_asked(project, run_python):
    (project / "params.yaml").write_text("seed: [1")
    assert_readable(run_python("-m", "pfmsmt.commands.main", "show"), "params.yaml is not valid YAML")
    done = run_python("-m", "pfmsmt.commands.main", "--debug", "show")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr
