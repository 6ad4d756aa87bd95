"""Methods of other packages, and of one more file in this one: found everywhere, or refused in words."""

import importlib
import json
import re
import shutil
import tomllib

import pytest
import yaml

from pfmsmt.config import METHOD_NAMES
from pfmsmt.methods.catalogue import declaration_of
from pfmsmt.methods.discovery import GROUP, find_methods
from tests.support.documents import ROOT, code_blocks
from tests.support.toy_package import PAGE, install, printed_method, run_beside

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
CONTRACT = ("tests/methods/test_catalogue_contract.py", "tests/methods/test_catalogue_absent_clients.py")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with the package of the how-to."""
    (text,) = [block for kind, block in code_blocks(PAGE.read_text(encoding="utf-8")) if kind == "toml"]
    project = tomllib.loads(text)["project"]
    return install(
        tmp_path_factory.mktemp("packages"), project["name"], project["entry-points"][GROUP],
        {"fedavgm": printed_method()}, project["version"],
    )  # fmt: skip


@pytest.fixture
def beside(packages):
    """Return a function that runs this Python with that package installed."""

    def run(*words: str, **options):
        return run_beside(*words, packages=packages, **options)

    return run


SETTINGS = """
import json, pickle, sys, yaml
from pfmsmt.config import METHOD_NAMES, Config, Register, parse_config
from pfmsmt.config.reference import below
from pfmsmt.core.errors import ConfigError
from pfmsmt.training.run import run_params

def refused(tree):
    try:
        parse_config(tree)
    except ConfigError as error:
        return str(error)

def methods(**block):
    return {"methods": {"fedavgm": block}}

config = parse_config({"methods": {"shared": {"private_learning_rate": 0.125, "learning_rate": 0.1}}})
assert pickle.loads(pickle.dumps(config)) == config
assert parse_config(config.model_dump(mode="json", by_alias=True)) == config
print(json.dumps({
    "names": METHOD_NAMES,
    "block": config.methods.fedavgm.model_dump(),
    "run": run_params(config, "fedavgm", 0, "cpu", "rows"),
    "fedavg": run_params(config, "fedavg", 0, "cpu", "rows"),
    "reference": [setting.key for setting in below("methods.fedavgm")],
    "registered": parse_config({"register": {"methods": ["fedavgm"]}}).register_.methods,
    "misspelt": refused(methods(momentm=0.5)),
    "range": refused(methods(momentum=1.5)),
    "pinned": refused(methods(package="fedavgm 1.0")),
    "other": refused(methods(package="fedavgm 0.9")),
    "unknown": refused({"train": {"methods": ["fedsgd"]}}),
    "near": refused({"methods": {"fedavgmm": {}}}),
}))
"""


@pytest.fixture(scope="module")
def found(packages):
    """What settings are with that package installed."""
    done = run_beside("-c", SETTINGS, packages=packages)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_settings_know_it(found):
    references = [name for name in METHOD_NAMES if not declaration_of(name).deployable]
    others = [name for name in METHOD_NAMES if name not in references]
    assert found["names"] == [*others, "fedavgm", *references]
    assert found["block"] == {
        "first_order_rate": 0.02, "ridge": 8.0, "private_ridge": 100.0,
        # Of methods.shared it has what is about private training; its rate of SGD is its own.
        "private_learning_rate": 0.125, "private_weight_decay": 2.0, "learning_rate": 0.2,
        "server_rate": 1.0, "momentum": 0.9, "package": "fedavgm 1.0",
    }  # fmt: skip
    assert found["reference"] == [f"methods.fedavgm.{key}" for key in found["block"]]
    assert found["registered"] == ["fedavgm"]
    assert found["misspelt"] == "params.yaml: methods.fedavgm.momentm: unknown key; did you mean 'momentum'?"
    assert found["range"] == "params.yaml: methods.fedavgm.momentum: input should be less than 1 (it is 1.5)"
    assert found["unknown"] == (
        f"params.yaml: train.methods.0: 'fedsgd' is unknown; did you mean 'fedavg'? valid: {', '.join(found['names'])}"
    )
    assert found["near"] == "params.yaml: methods.fedavgmm: unknown key; did you mean 'fedavgm'?"


def test_its_version_is_a_parameter_of_its_runs(found):
    assert found["run"]["methods.fedavgm.package"] == "fedavgm 1.0"
    assert not [key for key in found["fedavg"] if key.endswith("package")]
    assert found["pinned"] is None
    assert found["other"] == (
        "params.yaml: methods.fedavgm.package: fedavgm 1.0 is installed; write that, and the method is trained again, "
        "or install fedavgm 0.9 (it is 'fedavgm 0.9')"
    )


@pytest.mark.slow(6)
def test_it_goes_through_the_contract(beside):
    done = beside(*PYTEST, "-k", "fedavgm", *CONTRACT, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 10


LACKS = {
    "calls": ("return Method(NAME", 'return Method("fedavg"', "the method that it builds is called 'fedavg'"),
    "roles": ("(shared=_SHARED)", "(_SHARED - {Role.GATE})", "says shared=.*; its messages hold .*gate"),
    "serves": ("(shared=_SHARED)", "(_SHARED, serves='own')", "says serves='own'; other roles changed"),
    "keeps": (
        "(shared=_SHARED)",
        "(_SHARED, keeps='all')",
        "keeps='all', so .*; clients' states hold private, task",
    ),
    "phases": ("(shared=_SHARED)", "(_SHARED, phases=2)", "says phases=2; the method has 1"),
    "search": ("high=0.99", "high=1.5", r"says search\['momentum'\] with 1.5, which its block refuses"),
    "tensors": ("arrays.merge(state.private, received)\n\n", "received\n\n", "must return every tensor; absent: priv"),
}


@pytest.mark.slow(10)
def test_the_contract_says_in_words_what_is_missing(tmp_path):
    """Packages whose methods each have one fault, all at once, as each start takes seconds."""
    for fault, (old, new, _) in LACKS.items():
        text = printed_method().replace('Method("fedavgm"', "Method(NAME").replace('name="fedavgm"', "name=NAME")
        assert text.count(old) == 1
        text = text.replace(old, new).replace("\n_SHARED =", f'\nNAME = "toy_{fault}"\n_SHARED =')
        install(tmp_path, f"toys-{fault}", {f"toy_{fault}": f"toy_{fault}:FEDAVGM"}, {f"toy_{fault}": text})
    done = run_beside(*PYTEST, "-k", "toy_", *CONTRACT, packages=tmp_path, cwd=ROOT)
    assert done.returncode == 1, done.stdout + done.stderr
    for fault, (_, _, message) in LACKS.items():
        assert re.search(f"toy_{fault}.*{message}", done.stdout), f"{fault}: {done.stdout}"
    assert "KeyError" not in done.stdout


TRIALS = """
import json, torch
from pathlib import Path
from pfmsmt.config import load_config
from pfmsmt.config.keys import set_values
from pfmsmt.config.loading import parse_config, read_mapping
from pfmsmt.data.schema import read_schema
from pfmsmt.training.trial import run_trial

shards, found = Path("data/clients"), []
schema = read_schema(shards / "schema.json")
for name, changes in (("fedavg", {}), ("fedavgm", {"methods.fedavgm.momentum": 0.0}), ("fedavgm", {})):
    tree = read_mapping(Path("params.yaml"))
    set_values(tree, changes)
    trial = run_trial(parse_config(tree), schema, shards, name, 0, torch.device("cpu"), workers=1, threads=1)
    assert trial.federation.method.name == name
    found.append(trial.validation)
print(json.dumps(found))
"""


@pytest.mark.slow(6)
def test_it_trains_in_memory_and_without_momentum_is_fedavg(project, configure, beside):
    plain = {"server_optimizer": "plain", "server_learning_rate": 1.0, "server_weight_decay": 0.0}
    configure({"methods.fedavg": plain})
    done = beside("-c", TRIALS)
    assert done.returncode == 0, done.stderr
    fedavg, still, moving = json.loads(done.stdout)
    assert still == pytest.approx(fedavg, abs=1e-4)
    assert moving[0] == still[0], "momentum begins with the second round"
    assert moving != still


@pytest.mark.slow(8)
def test_a_stage_trains_it_and_refuses_unknown_names(project, configure, beside):
    configure({"train.methods": ["local"]})
    tree = yaml.safe_load((project / "params.yaml").read_text())
    tree["train"]["methods"], tree["methods"]["fedavgm"] = ["fedavgm"], {"momentum": 0.5, "package": "fedavgm 1.0"}
    (project / "params.yaml").write_text(yaml.safe_dump(tree))
    done = beside("-m", "stages.train", "fedavgm", "0")
    assert done.returncode == 0, done.stderr
    assert "fedavgm-seed0 4/4  loss" in done.stdout
    assert {path.name for path in (project / "models/fedavgm-seed0").iterdir()} >= {"NL", "ES", "US"}
    assert set(json.loads((project / "runs/fedavgm-seed0.json").read_text())["models"]) == {"NL", "ES", "US"}
    done = beside("-m", "stages.train", "fedavgn", "0")
    assert done.returncode == 2
    assert "invalid choice: 'fedavgn'" in done.stderr
    assert all(name in done.stderr for name in (*METHOD_NAMES, "fedavgm"))


@pytest.mark.slow(15)
def test_workers_of_a_search_find_it(project, configure, beside):
    configure({"tune.trials": 1, "tune.space": {"model.dropout": {"type": "float", "low": 0.1, "high": 0.4}}})
    tree = yaml.safe_load((project / "tune.yaml").read_text())
    tree["space"] = {"methods.fedavgm.momentum": {"type": "float", "low": 0.5, "high": 0.99}}
    (project / "tune.yaml").write_text(yaml.safe_dump(tree))
    done = beside("-m", "pfmsmt.commands.main", "tune", "--methods", "fedavgm", "--trials", "1", "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "methods.fedavgm.momentum" in done.stdout


@pytest.mark.slow(12)
def test_one_more_file_in_this_package_is_enough(tmp_path):
    """The file of the how-to in pfmsmt/methods, and an empty block: the contract runs over it."""
    for name in ("pfmsmt", "tests", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "tune.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pfmsmt/methods/fedavgm.py").write_text(printed_method())

    def inside(*words):
        return run_beside(*PYTEST, *words, packages=tmp_path, root=tmp_path, cwd=tmp_path)

    done = inside("-k", "fedavgm", *CONTRACT)
    assert done.returncode == 0, done.stdout + done.stderr
    # DVC wants the block, and a test says so.
    test = "tests/config/test_loading.py::test_params_has_every_key_that_dvc_follows"
    assert "params.yaml has no methods.fedavgm; {} is enough" in inside(test).stdout
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("  fedavg: {}\n", "  fedavg: {}\n  fedavgm: {}\n"))
    done = inside(test)
    assert done.returncode == 0, done.stdout


def toy(name="toy", key="momentum: float = Field(default=0.5, description='Share of the past.')", more="", block="Toy"):
    return f"""
from pydantic import Field
from pfmsmt.config.kinds import Frozen
from pfmsmt.methods.declaration import Declaration, MethodFacts, log_range

class Toy(Frozen):
    {key}

TOY = Declaration({name!r}, {block}, "A toy.", lambda block, setup: None, lambda _: MethodFacts(frozenset()){more})
"""


@pytest.mark.parametrize(
    ("point", "text", "message"),
    [
        ("toy:TOY", None, r"toy:TOY of toys 1\.0 cannot be imported: ModuleNotFoundError: .*; mend or uninstall that"),
        ("toy:NONE", toy(), "cannot be imported: AttributeError: module 'toy' has no attribute 'NONE'"),
        ("toy:TOY", "raise RuntimeError('no luck')", "cannot be imported: RuntimeError: no luck"),
        ("toy:Toy", toy(), "it is a ModelMetaclass, not a pfmsmt.methods.declaration.Declaration"),
        ("toy:TOY", toy(name="other"), "it is called 'other', and its entry point 'toy'; call both alike"),
        ("toy:TOY", toy(name="shared"), "'shared' cannot be its name: use lower case letters"),
        ("toy:TOY", toy(key="momentum: float"), "the key momentum of its block has no default; give it one"),
        ("toy:TOY", toy(key="momentum: float = 0.5"), "the key momentum of its block has no description"),
        (
            "toy:TOY",
            toy(key="package: str = Field(default='', description='It.')"),
            "its block has a key package, which",
        ),
        (
            "toy:TOY",
            toy(more=", search={'rate': log_range(0.1, 1.0)}"),
            "its search names rate, which is no key of its",
        ),
        ("toy:TOY", toy(block="dict"), "its block is no class that derives from pfmsmt.config.kinds.Frozen"),
    ],
)
def test_a_method_that_cannot_be_used_is_in_nobodys_way_and_says_why(tmp_path, monkeypatch, point, text, message):
    install(tmp_path, "toys", {"toy": point}, {} if text is None else {"toy": text})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "toy", raising=False)
    found = find_methods.__wrapped__()
    monkeypatch.delitem(importlib.sys.modules, "toy", raising=False)
    assert tuple(found.methods) == METHOD_NAMES
    assert list(found.broken) == ["toy"]
    assert re.search(message, found.broken["toy"]), found.broken["toy"]


@pytest.mark.parametrize("first", ["", "import fedavgm; "])
def test_a_file_that_asks_for_all_settings_is_told_not_to(tmp_path, first):
    text = printed_method().replace("import numpy as np\n", "import numpy as np\nfrom pfmsmt.config import Config\n")
    packages = install(tmp_path, "fedavgm", {"fedavgm": "fedavgm:FEDAVGM"}, {"fedavgm": text})
    done = run_beside("-c", f"{first}from pfmsmt.config.declared import BROKEN; print(BROKEN)", packages=packages)
    assert done.returncode == 0, done.stderr
    assert "; a method's file must not import Config or the catalogue" in done.stdout


def test_a_name_belongs_to_one_package(tmp_path, monkeypatch):
    for number in (1, 2):
        points = {"toy": "toy:TOY", "fedavg": "toy:TOY"} if number == 1 else {"toy": "toy:TOY"}
        install(tmp_path / str(number), f"toys{number}", points, {"toy": toy()})
        monkeypatch.syspath_prepend(tmp_path / str(number))
    monkeypatch.delitem(importlib.sys.modules, "toy", raising=False)
    found = find_methods.__wrapped__()
    monkeypatch.delitem(importlib.sys.modules, "toy", raising=False)
    assert tuple(found.methods) == METHOD_NAMES
    assert not found.packages
    assert re.fullmatch(r"toys\d 1.0 and toys\d 1.0 both have a method of this name; .*", found.broken["toy"])
    assert found.broken["fedavg"].startswith("pfmsmt and toys1 1.0 both have a method of this name; rename one or un")


BROKEN = """
from pfmsmt.config import parse_config
from pfmsmt.core.errors import ConfigError
from pfmsmt.methods.catalogue import method_facts

local = {"train": {"methods": ["local"]}}
for tree in ({"train": {"methods": ["toy"]}}, {**local, "methods": {"toy": {}}}, {"train": {"methods": ["fedavg"]}}):
    try:
        parse_config(tree)
    except ConfigError as error:
        print(error)
try:
    method_facts("toy", parse_config(local).methods)
except ValueError as error:
    print(error)
"""


def test_settings_that_name_a_broken_method_are_refused_with_the_reason(tmp_path):
    folder = install(tmp_path, "toys", {"toy": "toy:TOY", "fedavg": "toy:TOY"}, {})
    done = run_beside("-c", BROKEN, packages=folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    why = "toy:TOY of toys 1.0 cannot be imported: ModuleNotFoundError: No module named 'toy'; mend or uninstall that"
    starts = (
        f"params.yaml: train.methods.0: 'toy' cannot be used: {why}",
        f"params.yaml: methods.toy: this method cannot be used: {why}",
        "params.yaml: train.methods: 'fedavg' cannot be used: pfmsmt and toys 1.0 both have a method of this name",
        f"method 'toy' cannot be used: {why}",
    )
    for line, start in zip(done.stdout.splitlines(), starts, strict=True):
        assert line.startswith(start)
