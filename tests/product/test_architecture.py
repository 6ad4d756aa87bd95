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
    assert method_facts(name, methods).expert_parts == (
        parts if name == "pf_msmtrec" else {"rank": 0, "private_experts": 0}
    )


def test_names_of_the_config_are_the_methods_blocks():
    assert set(get_args(MethodName)) == set(type(load_config(ROOT / "params.yaml").methods).model_fields)


def test_the_training_stage_depends_on_all_code_that_decides_its_numbers():
    """All that training imports, directly or not, but for settings, messages, files, pictures and MLflow."""
    apart = {"config"}
    names = ("console", "errors", "files", "layout")
    apart_files = {f"pfmsmt.core.{name}" for name in names} | {"pfmsmt.training.devices"}
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["train"]["deps"]
    graph = grimp.build_graph("pfmsmt", cache_dir=None)
    found = graph.find_upstream_modules("pfmsmt.commands.train") - {"pfmsmt"}
    used = {module for module in found if module.split(".")[1] not in apart} - apart_files
    named = tuple(name.removesuffix(".py").replace("/", ".") for name in deps if name.startswith("pfmsmt"))
    missing = {module for module in used if not any(module == n or module.startswith(f"{n}.") for n in named)}
    assert {module for module in missing if not module.startswith(("pfmsmt.tracking", "pfmsmt.report"))} == set()
