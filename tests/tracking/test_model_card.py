"""Descriptions on MLflow's pages: of runs, models, versions and promotions."""

import pandas as pd
import pytest

from pfmsmt.core.layout import read_run
from pfmsmt.data.schema import Schema, SplitCounts, Task
from pfmsmt.tracking import connect, promotion, registry
from pfmsmt.tracking.model_card import NOTE, CardFacts, escaped, model_card, what_left

FILES = "#/experiments/1/runs/ab/artifacts"
CELL = {"auc": 0.71234, "auc_low": 0.70, "auc_high": 0.72, "gauc": 0.6, "logloss": 0.25, "ece": 0.01,
        "rows": 3000, "positives": 400}  # fmt: skip


def ledger(*rows: tuple[str, str, str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["client", "direction", "name", "role", "bytes"])


def facts(scenarios=("NL", "ES"), source="synthetic", group="search", **changes) -> CardFacts:
    counts = {
        "train": SplitCounts(rows=6000, groups=9, positives={}),
        "test": SplitCounts(rows=3000, groups=4, positives={}),
    }
    schema = Schema(
        source=source, fingerprint="f" * 64, group=group, tasks=(Task(name="ctr", label="click"),), categorical=(),
        numerical=(), private_vocabularies={}, counts=dict.fromkeys(scenarios, counts),
    )  # fmt: skip
    best = {"round": 7, "mean_auc": 0.7, "validation": {"ctr": {"auc": 0.70009, "logloss": 0.2}}}
    given = CardFacts(
        "pf_msmtrec", 3, schema, dict.fromkeys(scenarios, best), {key: {"ctr": CELL} for key in scenarios},
        "platt", True, 0.95, ledger(("NL", "up", "tower", "tower", 2048), ("NL", "up", "loss", "number", 8)), True,
    )  # fmt: skip
    return given._replace(**changes)


def test_a_card_says_what_one_asks_of_a_model() -> None:
    card = model_card(facts(), ["NL", "ES"], FILES)
    assert (
        "| NL | ctr&ensp; | 6,000, -, 3,000 | 7 | 0.7001 | 0.7123 [0.7000, 0.7200]&ensp; | 0.2500 | 0.0100 |\n| ES |"
        in card
    )
    for text in (
        "**pf_msmtrec**, seed 3", "test AUC [95%]", "synthetic, fingerprint `ffffffffffff`, grouped by search",
        "platt, fitted to validation rows; the scores above are of calibrated probabilities",
        "1 tensor in a round, 2 KiB (tower)", "**Limits.**", f"({FILES}/comparison/comparison.html)",
        f"[who listens to whom]({FILES}/training/pictures/listening-pf_msmtrec.png)",
    ):  # fmt: skip
        assert text in card
    one = model_card(facts(pictures=False, confidence=None), ["ES"], FILES)
    assert "the model of scenario ES" in one
    assert "| NL |" not in one
    assert "listens" not in one
    assert "No interval was computed." in one


def test_few_positives_an_undefined_auc_and_a_refit_are_said() -> None:
    cell = CELL | {"auc": None, "auc_low": None, "auc_high": None, "positives": 2}
    best = {"round": 7, "mean_auc": None, "validation": {"ctr": {"auc": None}}, "refit_rows": 7500}
    card = model_card(facts(scores={"NL": {"ctr": cell}}, best={"NL": best}, scenarios=("NL",)), ["NL"], FILES)
    assert "| 7 | - | -&ensp; | 0.2500 |" in card
    assert "mostly luck: NL ctr (2)." in card
    assert "Trained again on training and validation rows (7500)." in card


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "a|b", "[x](javascript:alert(1))", "*b* _i_ `c` # ~~d~~", "![](http://evil)", "&lt;"],
)
def test_texts_of_users_are_shown_as_they_are(text: str) -> None:
    shown = escaped(text)
    assert not set("<>|`*#[]()!~") & set(shown.replace("&#", "")), shown
    card = model_card(facts(source=text, group=text), ["NL"], FILES)
    assert shown in card
    assert text not in card


def test_a_text_of_users_has_one_line_and_plain_names_stay_plain() -> None:
    assert escaped("a\n\n# b\tc") == "a &#35; b c"
    assert escaped("pf_msmtrec QK-video 1.5") == "pf_msmtrec QK-video 1.5"


def test_a_card_of_many_scenarios_has_an_end() -> None:
    names = tuple(f"scenario-{number:03d}" for number in range(200))
    card = model_card(facts(scenarios=names), names, FILES)
    assert len(card) <= 5000
    assert "more rows are in the report" in card
    assert "**Limits.**" in card


def test_what_left_is_of_the_clients_themselves() -> None:
    rows = ledger(
        ("NL", "up", "expert", "expert", 1024), ("NL", "down", "gate", "gate", 99), ("ES", "up", "tower", "tower", 4096)
    )
    assert what_left(rows, ["NL"]) == "1 tensor in a round, 1 KiB (expert); counts and metrics."
    assert what_left(rows, ["all"]) == "1 tensor in a round, 4 KiB (expert, tower); counts and metrics."
    assert what_left(rows[1:2], ["NL"]) == "No tensor: only counts, losses and metrics."


def test_run_model_and_version_carry_the_card(finished_project) -> None:
    tracking = connect(finished_project)
    ids = read_run(finished_project, "local", 0)
    run = tracking.client.get_run(ids["run_id"])
    card = run.data.tags[NOTE]
    assert all(f"| {scenario} | ctcvr&ensp; | " in card for scenario in ("NL", "ES", "US"))
    assert f"{run.data.metrics['test/NL/ctr_auc']:.4f} [" in card
    assert f"runs/{ids['run_id']}/artifacts/comparison/comparison.html" in card
    own = tracking.client.get_logged_model(ids["models"]["NL"]).tags[NOTE]
    assert "the model of scenario NL" in own
    assert "| ES |" not in own
    (version,) = tracking.client.search_model_versions("name = 'pfmsmt-NL'")
    assert version.description == own
    about = tracking.client.get_registered_model("pfmsmt-NL").description
    assert "- version 1: champion since " in about


def test_a_model_and_a_run_that_are_not_scored_say_so(tracking, start, model_folder, rows) -> None:
    with start() as run:
        model = run.log_scenario_model("fedavg-NL", model_folder, rows, {"scenario": "NL"}, step=1)
    assert tracking.client.get_run(run.id).data.tags[NOTE].startswith("Training of fedavg with seed 0 on synthetic")
    assert tracking.client.get_logged_model(model).tags[NOTE].startswith("Not scored")


def test_a_promotion_is_in_words(shelf) -> None:
    done = promotion.promote(shelf.tracking, "NL", "challenger", 0.01)
    when = f"{done.time[:19].replace('T', ' ')} UTC"
    text = registry.find_version(shelf.tracking, "NL", "2").tags["promotion"]
    assert text.startswith(f"champion since {when} in place of version 1, promoted by ")
    assert "; validation AUC 0.7200 (before 0.7000)" in text
    worse = shelf.add("NL", val=0.5)
    promotion.promote(shelf.tracking, "NL", worse, 0.01, force=True)
    text = registry.find_version(shelf.tracking, "NL", worse).tags["promotion"]
    assert "promoted by force by " in text
    assert "in spite of: its val_mean_auc is 0.5000" in text
    promotion.rollback(shelf.tracking, "NL")
    about = shelf.tracking.client.get_registered_model("pfmsmt-NL").description
    lines = [line for line in about.splitlines() if line.startswith("- version")]
    assert [line.split(":")[0] for line in lines] == [f"- version {n}" for n in ("2", worse, "2", "1")]
    assert "rolled back" in lines[0]
