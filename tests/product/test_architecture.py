"""Imports point downward only; methods load without torch or mlflow."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import grimp
import pytest
import yaml

from pfmsmt.config import MethodName, load_config
from pfmsmt.methods import LocalResult, Method
from pfmsmt.methods.catalogue import build_method, method_facts

ROOT = Path(__file__).parents[2]


def test_imports_keep_to_their_floors():
    lint = Path(sys.executable).with_name("lint-imports")
    assert lint.exists(), "import-linter is missing: install the dev extra"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken." in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pfmsmt.methods.catalogue", {"torch", "mlflow", "flwr", "pandas"}),
        ("pfmsmt.core.metrics", {"torch", "mlflow"}),
        ("pfmsmt.models.saved", {"mlflow"}),
        ("pfmsmt.training.client", {"mlflow"}),
        ("pfmsmt.commands.register", {"torch", "mlflow"}),
        # What every command waits for.
        ("pfmsmt.commands.main", {"torch", "mlflow", "flwr", "optuna", "matplotlib"}),
    ],
)
def test_importing_loads_nothing_from_above(module, absent):
    """In a process of its own: here, other tests have loaded everything."""
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert set(done.stdout.split()) & absent == set()


@pytest.mark.parametrize("name", get_args(MethodName))
def test_every_method_of_the_config_can_be_built(name):
    def never_called(*_: object, **__: object) -> LocalResult:
        raise AssertionError("building a method must not train")

    methods = load_config(ROOT / "params.yaml").methods
    method = build_method(name, methods, never_called, {})
    assert isinstance(method, Method)
    assert method.name == name
    parts = methods.pf_msmtrec.model_dump(include={"rank", "private_experts"})
    none = {"rank": 0, "private_experts": 0}
    assert method_facts(name, methods).expert_parts == (parts if name == "pf_msmtrec" else none)


def test_names_of_the_config_are_the_methods_blocks():
    assert {*get_args(MethodName), "shared"} == set(type(load_config(ROOT / "params.yaml").methods).model_fields)


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

NO_DEPENDENCY = {
    "pfmsmt.config": "its values reach a stage through params",
    "pfmsmt.core.console": "messages",
    "pfmsmt.core.errors": "messages",
    "pfmsmt.core.files": "how files are written, not what is in them",
    "pfmsmt.core.layout": "names of files, which stand in dvc.yaml as well",
    "pfmsmt.tracking": "it logs, and decides no output",
}
NO_DEPENDENCY_OF = {
    "download": {
        # A source's reader is in one module with its download, and runs in the stage partition.
        "pfmsmt.data.shards": "reading raw files, not obtaining them",
        "pfmsmt.data.encoder": "reading raw files, not obtaining them",
        "pfmsmt.data.split": "reading raw files, not obtaining them",
        "pfmsmt.data.statistics": "reading raw files, not obtaining them",
    },
    "train": {"pfmsmt.report": "pictures that are logged to MLflow only"},
    "register": {
        "pfmsmt.commands.compare": "it prints what the stage compare has written",
        "pfmsmt.report": "as commands.compare",
        "pfmsmt.methods": "as commands.compare",
        "pfmsmt.core.arrays": "as commands.compare",
    },
}


def is_in(module, names):
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_decides_its_outputs(stage):
    """All that it imports, directly or not, apart from a short list."""
    graph = grimp.build_graph("stages", "pfmsmt", cache_dir=None)
    program = f"stages.{stage}"
    used = {program, *graph.find_upstream_modules(program)} - {"pfmsmt"}
    named = [name.removesuffix(".py").replace("/", ".") for name in STAGES[stage]["deps"]]
    apart = {**NO_DEPENDENCY, **NO_DEPENDENCY_OF.get(stage, {})}
    assert {module for module in used if not is_in(module, [*named, *apart])} == set()
    # No line of the list outlives its reason.
    assert [name for name in NO_DEPENDENCY_OF.get(stage, {}) if not any(is_in(module, [name]) for module in used)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_folders_but_for_few_files(stage):
    """Single files are the stage's own program and command, those of core, and what a schema is."""
    files = [name for name in STAGES[stage]["deps"] if name.startswith(("pfmsmt/", "stages/")) and name.endswith(".py")]
    own = {f"stages/{stage}.py", "stages/choice.py", f"pfmsmt/commands/{stage}.py"}
    shared = {"pfmsmt/data/schema.py", "pfmsmt/data/encoder.py"}
    assert [name for name in files if name not in own | shared and not name.startswith("pfmsmt/core/")] == []
    assert all((ROOT / name).exists() for name in STAGES[stage]["deps"] if name.startswith(("pfmsmt/", "stages/")))
