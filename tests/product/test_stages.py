import shutil
import time
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


def listing(folder):
    ignored = ("mlflow.db", "mlruns")
    found = (str(p.relative_to(folder)) for p in folder.rglob("*"))
    return sorted(name for name in found if not name.startswith(ignored))


def assert_readable(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("\nERROR: "), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


@pytest.mark.slow(15)
def test_the_stages_one_after_the_other(project, configure, run_python):
    configure({"train.methods": ["local"]})
    shutil.rmtree(project / "data")
    stages = (
        ["download"],
        ["partition"],
        ["card"],
        ["train", "local", "0"],
        ["evaluate", "local", "0"],
        ["compare"],
        ["register"],
    )
    for stage, *words in stages:
        done = run_python("-m", f"stages.{stage}", *words)
        assert done.returncode == 0, done.stderr
        # Nothing but our own plain lines: no terminal codes, no noise of libraries.
        assert "\x1b" not in done.stdout
        assert done.stderr == ""
        if stage == "train":
            assert "local-seed0 4/4  loss" in done.stdout
    assert "Test AUC" in done.stdout
    assert "make ui" in done.stdout
    assert "pfmsmt-NL version 1, champion: local-seed0" in done.stdout
    logged = list(project.rglob("artifacts/data/data.*"))
    assert {path.name for path in logged} == {"data.md", "data.html"}


def test_a_misspelt_key_names_the_nearest(project, run_python):
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["train"]["round"] = tree["train"].pop("rounds")
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    before = listing(project)
    done = run_python("-m", "stages.train", "fedavg", "0")
    assert_readable(done, "params.yaml: train.round: unknown key; did you mean 'rounds'?")
    assert listing(project) == before
    done = run_python("-m", "stages.train", "fedavg", "0", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.slow(5)
def test_a_tracking_server_that_is_not_there_is_named_before_training(project, run_python):
    before = listing(project)
    start = time.monotonic()
    done = run_python("-m", "stages.train", "fedavg", "0", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert time.monotonic() - start < 25
    assert_readable(done, "the MLflow server http://127.0.0.1:9 cannot be used")
    assert "loss" not in done.stdout
    assert listing(project) == before


@pytest.mark.slow(1)
def test_stages_in_the_wrong_order(project, run_python):
    shutil.rmtree(project / "data/clients")
    assert_readable(run_python("-m", "stages.train", "fedavg", "0"), "run `dvc repro partition` first")
    shutil.rmtree(project / "data/raw")
    assert_readable(run_python("-m", "stages.partition"), "run `dvc repro download` first")


def test_an_unknown_method(project, run_python):
    done = run_python("-m", "stages.train", "fedavgg", "0")
    assert done.returncode == 2
    assert "fedavg" in done.stderr
    assert "Traceback" not in done.stderr


LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
sys.argv[0] = sys.argv.pop(1)
if sys.argv[0] == "stages.train":
    import mlflow, pfmsmt.tracking  # what they write on import does not count
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow(4)
@pytest.mark.parametrize(("stage", "limit"), [("download", 20_000), ("partition", 10_000), ("train fedavg 0", 400_000)])
def test_a_full_disk_leaves_nothing_half_written(project, configure, run_python, stage, limit):
    """The system refuses files above a size, in the middle of writing, as a full disk does."""
    configure({"model.expert_layers": [512, 128]} if stage.startswith("train") else {})
    program = project.parent / "limited.py"
    program.write_text(LIMITED)
    name, *words = stage.split()
    if name == "train":
        # MLflow's own file is not to be the one that is refused.
        limit = (project / "mlflow.db").stat().st_size + 400_000
    before = {p: p.read_bytes() for p in (project / "data").rglob("*") if p.is_file()}
    done = run_python(str(program), str(limit), f"stages.{name}", *words)
    assert_readable(done, "File too large")
    assert {p: p.read_bytes() for p in (project / "data").rglob("*") if p.is_file()} == before
    left = [n for n in listing(project) if ".tmp" in n or ".old" in n or n.startswith(("models/", "runs"))]
    assert left == []
