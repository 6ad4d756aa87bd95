"""Settings of another file in params.yaml: they arrive, and all else stays as it was written."""

import shutil

import pytest
import yaml
from typer.testing import CliRunner

from pfmsmt.commands.main import app
from pfmsmt.config import load_config
from pfmsmt.config.overlay import merge_settings
from pfmsmt.core.errors import ConfigError
from tests.support.documents import ROOT

SHOP = """\
data:
  source: tabular
  private_fields: [customer]
  tabular:
    path: shop.csv
    scenario: country
    scenarios: {NL: NL, 'NO': 'NO'}
    labels:
      - {task: ctr, column: clicked}
      - {task: ctcvr, column: bought, within: ctr}
    categorical: [customer]
    group: visit
"""


@pytest.fixture
def merge(tmp_path):
    """Return a function that merges a text into a copy of the repository's params.yaml."""
    target, overlay = tmp_path / "params.yaml", tmp_path / "some.yaml"
    shutil.copy(ROOT / "params.yaml", target)

    def call(text: str) -> list[str]:
        overlay.write_text(text, encoding="utf-8")
        return merge_settings(overlay, target)

    call.target = target
    return call


def test_settings_arrive_and_comments_stay(merge):
    before = merge.target.read_text().splitlines()
    assert merge(SHOP)[:2] == ["data.source: tabular", "data.private_fields: [customer]"]
    block = load_config(merge.target).data.tabular
    assert (block.path, block.scenario, block.group, block.time) == ("shop.csv", "country", "visit", None)
    assert block.scenarios == {"NL": "NL", "NO": "NO"}
    assert [(label.task, label.within) for label in block.labels] == [("ctr", None), ("ctcvr", "ctr")]
    after = merge.target.read_text().splitlines()
    given = {line.strip().split(":")[0] for line in SHOP.splitlines()}
    assert [line for line in before if line not in after and line.strip().split(":")[0] not in given] == []
    assert "  source: tabular             # synthetic | aliexpress" in merge.target.read_text()
    # The blank lines are where they were: in front of each block, and nowhere else.
    assert [after[at + 1] for at, line in enumerate(after[:-1]) if not line] == [
        before[at + 1] for at, line in enumerate(before[:-1]) if not line
    ]


def test_a_second_time_there_is_nothing_to_change(merge):
    merge(SHOP)
    text = merge.target.read_text()
    assert merge(SHOP) == []
    assert merge.target.read_text() == text


def test_blocks_are_merged_and_mappings_of_free_names_replaced(merge):
    size = "{train_rows: 300, test_rows: 200}"
    text = f"seed: 3\ndata:\n  synthetic:\n    scenarios: {{A: {size}}}\nmethods: {{apfl: {{alpha_rate: 0.2}}}}\n"
    changes = merge(text)
    assert changes == ["seed: 3", f"data.synthetic.scenarios: {{A: {size}}}", "methods.apfl.alpha_rate: 0.2"]
    config = load_config(merge.target)
    assert (config.seed, list(config.data.synthetic.scenarios)) == (3, ["A"])
    assert (config.methods.apfl.alpha, config.methods.apfl.alpha_rate) == (0.5, 0.2)
    tree, was = (yaml.safe_load(path.read_text()) for path in (merge.target, ROOT / "params.yaml"))
    assert {key: tree[key] for key in tree if key not in ("seed", "data", "methods")} == {
        key: was[key] for key in was if key not in ("seed", "data", "methods")
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: {round: 2}", r"some\.yaml: train\.round: unknown key; did you mean 'rounds'"),
        ("train: {rounds: 0}", r"some\.yaml: train\.rounds: .*greater than"),
        ("data: {tabular: {scenarios: {NO: x}}}", "quote them, as 'NO'"),
        ("- 1", "expected a mapping"),
        ("a: [", "not valid YAML"),
        ("seed: 1\nseed: 2", "cannot be rewritten .*duplicate key"),
    ],
)
def test_what_does_not_fit_changes_nothing(merge, text, fault):
    before = merge.target.read_bytes()
    with pytest.raises(ConfigError, match=f"(?s){fault}"):
        merge(text)
    assert merge.target.read_bytes() == before


def test_the_command_says_what_changed(merge):
    (merge.target.parent / "some.yaml").write_text("train: {rounds: 7}\n")
    words = ["params", "merge", str(merge.target.parent / "some.yaml"), "--file", str(merge.target)]
    first, second = (CliRunner().invoke(app, words, catch_exceptions=False).output for _ in range(2))
    assert first.startswith("train.rounds: 7\n")
    assert "git checkout" in first
    assert "nothing was changed" in second
