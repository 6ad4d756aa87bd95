"""The house keeps its rules: rooms, floors, names, sizes of modules, summary lines, and where tests live."""

import configparser
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import grimp
import pytest
import yaml

from pfmsmt.config import MethodName, load_config
from pfmsmt.methods import LocalResult, Method
from pfmsmt.methods.catalogue import build_method, method_facts
from pfmsmt.methods.pf_msmtrec import Architecture
from tests.support.source import PACKAGE, ROOT, STAGES, TESTS, imported_names, modules, public_names, summaries

ROOMS = {
    "core", "config", "methods", "data", "models", "tracking", "report", "training", "serving", "tuning", "flower",
    "commands",
}  # fmt: skip
every_room = pytest.mark.parametrize("room", sorted(ROOMS))

NAMED_AFTER_OTHERS = {"config", "commands"}
"""Rooms whose modules are named after what they configure or call."""
MOST_WORDS, MOST_LINES, FEWEST_LINES = 12, 400, 60
NO_SUBJECT = ("Of", "What", "How", "Where", "Whose", "Who", "Which", "When")
DEFINED_AGAIN: dict[str, str] = {}
"""Public names that several modules define -> why."""
RUN_FROM_OUTSIDE = {
    "pfmsmt.serving.pyfunc_model": "MLflow loads it by its path",
    "pfmsmt.flower.server.server_app": "Flower starts it by its name",
    "pfmsmt.flower.site.client_app": "Flower starts it by its name",
}
"""Short modules that another program imports -> which."""


def test_the_package_has_twelve_rooms_and_nothing_beside_them():
    inside = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert inside == ROOMS | {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.slow(3)
def test_imports_keep_to_their_floors():
    lint = Path(sys.executable).with_name("lint-imports")
    assert lint.exists(), "import-linter is missing: install the dev extra"
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken." in done.stdout


def test_there_are_seven_floors_and_every_room_is_on_one():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    floors = contracts["importlinter:contract:layers"]["layers"].split("\n")[1:]
    assert len(floors) == 7
    assert sorted(floors_room.strip() for floor in floors for floors_room in floor.split(":")) == sorted(
        f"pfmsmt.{room}" for room in ROOMS
    )


def assert_none(offenders: Iterable[str]) -> None:
    """Fail with all of them, however many there are."""
    lines = sorted(offenders)
    if lines:
        pytest.fail(f"{len(lines)} offenders:\n" + "\n".join(lines), pytrace=False)


@every_room
def test_a_module_name_is_used_once(room):
    places = defaultdict(list)
    for module in modules(PACKAGE):
        if module.room not in NAMED_AFTER_OTHERS and module.stem != "__init__":
            places[module.stem].append(module)
    clashes = [found for found in places.values() if len(found) > 1 and any(module.room == room for module in found)]
    assert_none(", ".join(module.name for module in found) for found in clashes)


@every_room
def test_a_public_name_is_defined_once(room):
    places = defaultdict(list)
    for module in modules(PACKAGE):
        for name in set(public_names(module)) - DEFINED_AGAIN.keys():
            places[name].append(module)
    clashes = {n: found for n, found in places.items() if len(found) > 1 and any(m.room == room for m in found)}
    assert_none(f"{name}: {', '.join(module.name for module in found)}" for name, found in clashes.items())


@pytest.mark.parametrize("room", [*sorted(ROOMS), "pfmsmt", "stages"])
def test_a_summary_line_is_short_and_has_a_subject(room):
    found = [
        summary
        for module in [*modules(PACKAGE), *modules(STAGES)]
        if module.room == room
        for summary in summaries(module)
    ]
    assert found
    assert_none(
        f"{where}: {len(line.split())} words: {line}"
        for where, line in found if len(line.split()) > MOST_WORDS or line.split()[0] in NO_SUBJECT
    )  # fmt: skip


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("pfmsmt", "stages", cache_dir=None)


@every_room
def test_a_module_is_worth_a_file_of_its_own(room, imports):
    """At most 400 lines; a short one is there because several need it, or another program does."""
    own = [module for module in modules(PACKAGE) if module.room == room and module.stem != "__init__"]
    assert_none(f"{module.name}: {module.lines} lines" for module in own if module.lines > MOST_LINES)
    short = [module for module in own if module.lines < FEWEST_LINES and module.name not in RUN_FROM_OUTSIDE]
    importers = {module: imports.find_modules_that_directly_import(module.name) for module in short}
    assert_none(
        f"{module.name}: {module.lines} lines, imported by {', '.join(found) or 'none'}"
        for module, found in importers.items() if len(found) < 2
    )  # fmt: skip


@every_room
def test_a_test_file_is_named_after_a_module_of_its_room(room):
    names = {part for module in modules(PACKAGE) if module.room == room for part in module.name.split(".")[1:]}
    files = [module.stem for module in modules(TESTS) if module.room == room and module.stem != "conftest"]
    assert_none(file for file in files if not re.fullmatch(f"test_({'|'.join(names)})(_.+)?", file))


def test_every_folder_of_tests_is_named_after_a_room():
    assert {module.room for module in modules(TESTS)} <= ROOMS | {"product", "support", "tests"}


def test_a_slow_test_says_how_many_seconds_it_takes():
    """The longest files start first, by these."""
    assert_none(module.name for module in modules(TESTS) if re.search(r"mark\.slow\b(?!\()", module.text))


def test_tests_share_helpers_through_the_support_package_alone():
    stems = {module.stem for module in modules(TESTS)} - {"__init__"}
    imported = [(module.name, name) for module in modules(TESTS) for name in imported_names(module)]
    inside = [(user, name) for user, name in imported if name.split(".")[0] in {"", "tests", *stems}]
    assert_none(f"{user} imports {n}" for user, n in inside if not n.startswith(("tests.support", "tests.conftest")))


@pytest.mark.slow(1.5)
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
    own = {"rank": 0, "private_experts": 0, "scenario_rank": 0, "linear_experts": 1}
    if name == "linear":
        own = {"experts": 0, "first_order": True, "linear_experts": 0}
    block = getattr(methods, name)
    if isinstance(block, Architecture):
        own = block.model_dump(include=own.keys())
    assert method_facts(name, methods).model_parts == own
    assert isinstance(block, Architecture) or name not in ("pf_msmtrec", "pf_msmtrec_paper", "joint")


def test_names_of_the_config_are_the_methods_blocks():
    assert {*get_args(MethodName), "shared"} == set(type(load_config(ROOT / "params.yaml").methods).model_fields)


PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

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
        "pfmsmt.core.display": "as commands.compare",
    },
}


def is_in(module, names):
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_all_code_that_decides_its_outputs(stage):
    """All that it imports, directly or not, apart from a short list."""
    graph = grimp.build_graph("stages", "pfmsmt", cache_dir=None)
    program = f"stages.{stage}"
    used = {program, *graph.find_upstream_modules(program)} - {"pfmsmt"}
    named = [name.removesuffix(".py").replace("/", ".") for name in PIPELINE[stage]["deps"]]
    apart = {**NO_DEPENDENCY, **NO_DEPENDENCY_OF.get(stage, {})}
    assert {module for module in used if not is_in(module, [*named, *apart])} == set()
    # No line of the list outlives its reason.
    assert [name for name in NO_DEPENDENCY_OF.get(stage, {}) if not any(is_in(module, [name]) for module in used)] == []


@pytest.mark.parametrize("stage", PIPELINE)
def test_code_dependencies_are_folders_but_for_few_files(stage):
    """Single files are the stage's own program and command, those of core, and what a schema is."""
    files = [
        name for name in PIPELINE[stage]["deps"] if name.startswith(("pfmsmt/", "stages/")) and name.endswith(".py")
    ]
    own = {f"stages/{stage}.py", "stages/choice.py", f"pfmsmt/commands/{stage}.py"}
    shared = {"pfmsmt/data/schema.py", "pfmsmt/data/encoder.py"}
    assert [name for name in files if name not in own | shared and not name.startswith("pfmsmt/core/")] == []
    assert all((ROOT / name).exists() for name in PIPELINE[stage]["deps"] if name.startswith(("pfmsmt/", "stages/")))
