"""The pages say what the code does: names exist, commands have their options, examples run, sentences are short."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml

from pfmsmt.commands.main import app
from pfmsmt.config import Train
from pfmsmt.config.reference import reference
from pfmsmt.core.types import NEVER_LEAVES, Role
from pfmsmt.data.sources.base import Delivery, Opening, read_rows
from pfmsmt.data.tables.faults import Faults
from pfmsmt.methods.declaration import Setup
from pfmsmt.tracking import logged_metrics
from tests.support.documents import (
    ROOT,
    code_blocks,
    code_spans,
    commands,
    links,
    pages,
    sentences,
    without_code,
    word_count,
)
from tests.support.quadratic import TEMPLATE, federation, quadratic_train, run, values

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in pages()}
PROSE = [name for name in PAGES if not name.startswith("docs/reference/")]
each_page = pytest.mark.parametrize("name", PAGES)
LONGEST_SENTENCE = 25
FILES = ("py", "md", "json", "csv", "yaml", "parquet", "html", "toml", "npz", "journal", "pem", "key", "pub", "db")


@pytest.mark.parametrize("name", PROSE)
def test_sentences_are_short(name):
    long = [sentence for sentence in sentences(PAGES[name]) if word_count(sentence) > LONGEST_SENTENCE]
    assert long == []


def test_sentences_and_their_words_are_counted():
    text = "# A title.\n\nOne `code span here` two\nthree. [Four five](x.md#y) $a + b$!\n\n| a. | b |\n\n- Six.\n"
    assert [(s, word_count(s)) for s in sentences(text)] == [
        ("One code two three.", 4), ("Four five equation!", 3), ("Six.", 1)
    ]  # fmt: skip


def slugs(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@each_page
def test_links_resolve(name):
    for link in links(PAGES[name]):
        if link.startswith(("https://", "http://127.0.0.1")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent.joinpath(path).resolve() if path else ROOT / name
        assert target.is_file(), f"{name}: {link}"
        assert not anchor or anchor in slugs(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_files_name_pages_that_exist():
    """In code, params.yaml and everywhere else."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if (
            path.suffix in (".py", ".yaml", ".toml", ".md", "")
            and path.is_file()
            and not name.startswith("tests/support")
        ):
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8")):
                assert (ROOT / page).is_file() or (path.parent / page).is_file(), f"{name}: {page}"


@each_page
def test_paths_of_code_exist(name):
    """`pfmsmt/training/rounds.py`, or `training/rounds.py` for short."""
    for span in code_spans(PAGES[name]):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/([\w-]+\.py)?", span) and not span.startswith((".", "/", "code/")):
            top = span.split("/")[0]
            if (ROOT / top).exists() and top in ("pfmsmt", "tests", "benchmarks", "stages", "docs"):
                assert (ROOT / span).exists(), f"{name}: {span}"
            elif span.endswith(".py"):
                assert (ROOT / "pfmsmt" / span).exists(), f"{name}: {span}"


def test_the_floor_plans_are_that_of_the_linter():
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    layers = rules["importlinter:contract:layers"]["layers"].split("\n")[1:]
    floors = [[room.strip().removeprefix("pfmsmt.") for room in layer.split(":")] for layer in layers]
    table = re.findall(r"^\| (\d) \| `(\w+)` ", PAGES["docs/explanation/architecture.md"], re.MULTILINE)
    assert [(int(floor), room) for floor, room in table] == [
        (7 - place, room) for place, rooms in enumerate(floors) for room in rooms
    ]
    (drawing,) = [block for _, block in code_blocks(PAGES["README.md"]) if block.startswith("commands")]
    rooms = {room for floor in floors for room in floor}
    assert [[word for word in re.split(r"\s+|;|,", line) if word in rooms][: len(floor)] for line, floor in zip(
        drawing.splitlines(), floors, strict=True
    )] == floors  # fmt: skip


def command_lines(text: str) -> list[str]:
    """Return all commands of a page: those of shell blocks, part by part, and those in backticks."""
    lines = [part.strip() for line in commands(text) for part in re.split(r"&&|\|\|", line)]
    return [*lines, *code_spans(text)]


@each_page
def test_commands_exist_with_their_options(name):
    for line in command_lines(PAGES[name]):
        if line.startswith("pfmsmt "):
            check_command(line.split()[1:], f"{name}: {line}")


def check_command(words: list[str], where: str) -> None:
    """Follow the words from group to group, then look up every option."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, where
        command, words = command.commands[words[0]], words[1:]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, where


@each_page
def test_targets_of_make_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in command_lines(PAGES[name]):
        if found := re.fullmatch(r"make ([a-z-]+)\b.*", line):
            assert found[1] in targets, f"{name}: {line}"


@each_page
def test_stages_exist(name):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for line in command_lines(PAGES[name]):
        if found := re.fullmatch(r"dvc repro (?:-\w+ )*([a-z]+)\b.*", line):
            assert found[1] in stages, f"{name}: {line}"


SETTINGS = reference()
BLOCKS = {setting.key.split(".")[0] for setting in SETTINGS} - {"tune"}


def is_key(key: str) -> bool:
    """Say whether a dotted key names a value or a block of params.yaml, or stands in a mapping."""
    for setting in SETTINGS:
        pattern = re.sub(r"<\w+>", "[^.]+", re.escape(setting.key))
        if re.match(f"{re.escape(key)}[.]", f"{setting.key}.") or re.fullmatch(pattern, key):
            return True
        if "mapping" in setting.kind and re.match(f"{pattern}[.]", key):
            return True
    # The method of the how-to is in no file of ours; tests/methods/test_discovery.py runs the page.
    return key.startswith("methods.fedavgm")


@pytest.mark.parametrize("name", [name for name in PAGES if name != "CHANGELOG.md"])
def test_keys_of_params_exist(name):
    spans = [span.split(":")[0] for span in code_spans(PAGES[name])]
    set_to = [word for line in command_lines(PAGES[name]) for word in re.findall(r"-S '?([\w.]+)=", line)]
    for key in [*spans, *set_to]:
        words = key.split(".")
        if re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", key) and words[0] in BLOCKS and words[-1] not in FILES:
            assert is_key(key), f"{name}: {key}"
    for kind, block in code_blocks(PAGES[name]):
        for path in paths_in(yaml.safe_load(block)) if kind == "yaml" else ():
            assert is_key(path), f"{name}: {path}"


def paths_in(tree: Any, above: str = "") -> list[str]:
    """Return the dotted keys of all values of a tree of mappings."""
    if not isinstance(tree, dict):
        return [above]
    return [path for key, value in tree.items() for path in paths_in(value, f"{above}.{key}" if above else str(key))]


def test_what_is_no_key_is_known():
    for key in ("train", "train.rounds", "methods.fedavg.learning_rate", "data.synthetic.scenarios.NL.train_rows"):
        assert is_key(key)
    assert is_key("data.tabular.fill.price")
    for key in ("train.round", "train.rounds.more", "train.clip", "trai"):
        assert not is_key(key)


@pytest.mark.slow(3)
def test_reference_pages_are_current():
    words = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow(6)
def test_metrics_that_runs_log_are_listed(configure, train_all):
    config = configure({
        "train.methods": ["pf_msmtrec"], "train.rounds": 3, "privacy.clip": 1.0, "privacy.noise": 0.5,
        "methods.pf_msmtrec.tower_steps": 2, "register.methods": ["pf_msmtrec"],
    })  # fmt: skip
    tracking = train_all(config, last="evaluate")
    (found,) = tracking.client.search_runs([tracking.experiment_id])
    names = set(found.data.metrics)
    sections = (
        logged_metrics.EACH_ROUND, logged_metrics.OF_COORDINATION, logged_metrics.OF_NOISE, logged_metrics.AT_THE_END
    )  # fmt: skip
    listed = [metric for section in sections for metric in section]
    assert [name for name in names if not any(metric.matches(name) for metric in listed)] == []
    assert [metric.name for metric in listed if not any(metric.matches(name) for name in names)] == []


@pytest.mark.parametrize("name", [n for n in PAGES if n.startswith("docs/decisions/") and not n.endswith("index.md")])
def test_decisions_are_numbered_and_dated_and_have_three_parts(name):
    _, *entries = re.split(r"^## ", PAGES[name], flags=re.MULTILINE)
    assert [entry.split(".")[0] for entry in entries] == [str(number + 1) for number in range(len(entries))]
    dates = [re.search(r"^\*(\d{4}-\d\d-\d\d)\*$", entry, re.MULTILINE)[1] for entry in entries]
    assert dates == sorted(dates)
    for entry in entries:
        assert re.findall(r"^- \*\*(\w+)\.\*\*", entry, re.MULTILINE) == ["Context", "Choice", "Cost"], entry


def example(name: str) -> dict[str, Any]:
    """Run the one Python block of a page, and return its names."""
    (block,) = [block for kind, block in code_blocks(PAGES[name]) if kind == "python"]
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, name, "exec"), names)
    return names


def test_the_example_of_a_method_is_fedavg_with_momentum():
    """Two rounds of 3 steps at rate 0.1: v = sum p_k (w_k - w), then v <- v / 2 + sum p_k (w_k - w), w <- w + v."""
    names = example("docs/how-to/add-a-method.md")
    block = names["FedAvgM"](learning_rate=0.1, private_learning_rate=0.1, private_weight_decay=0.0, momentum=0.5)
    method = names["FEDAVGM"].build(block, Setup(quadratic_train, TEMPLATE, Train()))
    start, data = values(0), federation(3)
    served = run(method, start, data, rounds=2).served
    for client, arrays in served.items():
        for name, array in arrays.items():
            role = TEMPLATE[name].role
            if role in NEVER_LEAVES:
                target = data[client].target[name]
                np.testing.assert_allclose(array, target + 0.9**6 * (start[name] - target), atol=1e-12, err_msg=name)
                continue
            target = sum(share * data[k].target[name] for k, share in zip(data, (1 / 6, 2 / 6, 3 / 6), strict=True))
            past, velocity, now = (0.0 if role is Role.NORM else 0.5), 0.0, start[name]
            for _ in range(2):
                velocity = past * velocity + (1 - 0.9**3) * (target - now)
                now = now + velocity
            np.testing.assert_allclose(array, now, atol=1e-12, err_msg=name)


def test_the_example_of_a_source_yields_rows(make_config, tmp_path):
    names = example("docs/how-to/add-a-source.md")
    source, config = names["DICE"], make_config().data
    raw, scratch = tmp_path / "raw", tmp_path / "scratch"
    raw.mkdir()
    scratch.mkdir()
    source.obtain(config, 0, Delivery(raw, False, {}, tmp_path / "kept", print))
    faults = Faults()
    dataset = source.open(Opening(config, 0, raw, source.scenarios(config), scratch, faults, print))
    for scenario in source.scenarios(config):
        for split in ("train", "test"):
            rows = [len(batch["clicked"]) for batch in read_rows(dataset, scenario, split, faults)]
            assert sum(rows) == names["ROWS"]


@pytest.mark.slow(10)
def test_the_pages_build_without_a_warning(tmp_path):
    mkdocs = Path(sys.executable).with_name("mkdocs")
    words = [mkdocs, "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(
        words, cwd=ROOT, env={"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "explanation/method.html").read_text(encoding="utf-8")
    assert page.count("<math") > 40
    # Nothing is fetched from elsewhere when a page is opened.
    for path in tmp_path.rglob("*.html"):
        fetched = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", path.read_text("utf-8"))
        assert fetched == [], path.name
