"""The files of a comparison."""

import json

import pandas as pd
import pytest
from matplotlib.image import imread

from pfmsmt.core.errors import DataError
from pfmsmt.report.comparison.comparison_page import write_comparison

PICTURES = ["auc", "rounds", "roc", "calibration", "listening-pf_msmtrec", "cosine-pf_msmtrec", "course-pf_msmtrec"]


@pytest.mark.slow(3)
def test_every_picture_is_a_png_that_shows_something(report):
    pictures = [path for path in report if path.suffix == ".png"]
    assert [path.stem for path in pictures] == PICTURES
    for path in pictures:
        pixels = imread(path)
        assert pixels.shape[0] > 200
        assert pixels.shape[1] > 400
        assert pixels[..., :3].std() > 0.01


@pytest.mark.slow(1)
def test_all_files_and_no_others(report):
    folder = report[0].parent
    expected = {"metrics.json", "summary.json", "comparison.md", "comparison.html"}
    expected |= {"rounds.csv", "roc.csv", "calibration.csv"} | {f"pictures/{name}.png" for name in PICTURES}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == expected == {str(path.relative_to(folder)) for path in report}
    tree = json.loads((folder / "metrics.json").read_text())
    assert tree["pf_msmtrec"]["NL"]["ctr"]["auc"] == 0.8125
    assert tree["pf_msmtrec"]["ES"]["ctcvr"]["auc"] is None
    assert pd.read_csv(folder / "rounds.csv")["round"].max() == 2
    assert "(pictures/roc.png)" in (folder / "comparison.md").read_text()


@pytest.mark.slow(3)
def test_same_results_same_bytes(report, load, tmp_path):
    again = write_comparison(load(seeds=(0, 1)), tmp_path / "again")
    assert [path.name for path in again] == [path.name for path in report]
    for one, two in zip(report, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


@pytest.mark.slow(1)
def test_old_pictures_go_and_foreign_files_stay(load, inputs):
    for path in inputs.rglob("metrics.json"):  # also: one scenario, one method, no oracle
        tree = json.loads(path.read_text())
        tree["scenarios"].pop("NL")
        path.write_text(json.dumps(tree))
    folder = inputs / "reports"
    (folder / "pictures").mkdir(parents=True)
    for name in ("pictures/listening-mine.png", "notes.txt"):
        (folder / name).write_text("mine")
    written = write_comparison(load(methods=("fedavg",), oracle=None), folder)
    assert sum(path.suffix == ".png" for path in written) == 4
    assert not (folder / "pictures/listening-mine.png").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_nothing_is_written_when_inputs_are_bad(load, inputs):
    (inputs / "evaluation/fedavg-seed0/roc.csv").unlink()
    with pytest.raises(DataError, match=r"roc\.csv does not exist"):
        write_comparison(load(), inputs / "reports")
    assert not (inputs / "reports").exists()
