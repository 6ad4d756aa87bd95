"""The files of a report, and the pictures in it."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from pfmsmt.core.errors import DataError
from pfmsmt.report.comparison.diagnostics import diagnostic_pictures
from pfmsmt.report.comparison.plotdata import calibration_table, csv_text, roc_table, rounds_table
from pfmsmt.report.comparison.results import Diagnostics
from pfmsmt.report.comparison.writing import write_report
from pfmsmt.report.drawing import looks

PICTURES = ["auc", "rounds", "roc", "calibration", "listening-pf_msmtrec", "cosine-pf_msmtrec", "course-pf_msmtrec"]


class TestPlotData:
    def test_rounds_average_the_tasks_that_are_defined(self, load):
        table = rounds_table(load(seeds=(0, 1)))
        assert list(table) == ["method", "seed", "scenario", "round", "auc", "logloss"]
        assert table.iloc[:4].to_numpy().tolist() == [
            ["pf_msmtrec", 0, "NL", 1, 0.5625, 0.5],
            ["pf_msmtrec", 0, "NL", 2, 0.625, 0.5],
            ["pf_msmtrec", 0, "ES", 1, 0.5625, 0.5],
            ["pf_msmtrec", 0, "ES", 2, 0.625, 0.5],
        ]
        assert len(table) == 3 * 2 * 2 * 2

    def test_a_round_with_nothing_defined_is_an_empty_cell(self, load):
        results = load(methods=("fedavg",), tasks=["ctcvr"])
        run = results.runs[0]
        run.history.loc[run.history["task"] == "ctr", "auc"] = np.nan
        assert "fedavg,0,ES,1,,0.5\n" in csv_text(rounds_table(results))

    def test_curves_are_of_the_lowest_seed(self, load):
        results = load(seeds=(1, 0))
        assert set(roc_table(results)["seed"]) == {0}
        assert len(roc_table(results)) == 3 * 9
        assert len(calibration_table(results)) == 3 * 8


class TestPictures:
    def test_every_picture_is_a_png_that_shows_something(self, report):
        pictures = [path for path in report if path.suffix == ".png"]
        assert [path.stem for path in pictures] == PICTURES
        for path in pictures:
            pixels = imread(path)
            assert pixels.shape[0] > 200
            assert pixels.shape[1] > 400
            assert pixels[..., :3].std() > 0.01

    @pytest.mark.parametrize("clients", [1, 14])
    def test_diagnostics_of_one_client_or_of_many_with_one_that_never_answers(self, clients):
        names, last = [f"site-{number:02d}" for number in range(clients)], f"site-{clients:02d}"
        rows = []
        for number, quantity in itertools.product((8, 16), ("listening", "cosine")):
            for pair in itertools.product([*names, last], repeat=2):
                value = float(pair[0] == pair[1]) if quantity == "listening" or last not in pair else np.nan
                rows.append((number, "expert/0", quantity, *pair, value))
        for number, quantity in itertools.product((8, 16), ("coefficients", "drift")):
            rows += [(number, "expert/0", quantity, k, "", np.nan if k == last else 0.5) for k in [*names, last]]
        rows += [(number, "expert/0", "conflicts", "", "", 0.0) for number in (8, 16)]
        table = pd.DataFrame(rows, columns=["round", "group", "quantity", "client", "other", "value"])
        traffic = pd.DataFrame({"round": 1, "client": [*names, last], "bytes_up": 0, "bytes_down": 0})
        pictures = diagnostic_pictures("mine", Diagnostics(table, traffic))
        assert [picture.name for picture in pictures] == ["listening-mine", "cosine-mine", "course-mine"]
        assert "round 16" in pictures[0].caption
        assert ("median over clients" in pictures[2].caption) is (clients == 14)

    def test_a_method_keeps_its_look_in_any_company(self):
        alone, together = looks(["fedavg"]), looks(["mine", "fedavg", "other", "oracle"])
        assert alone["fedavg"] == together["fedavg"]
        assert len({look.colour for look in together.values()}) == 4


class TestWriting:
    def test_all_files_and_no_others(self, report):
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

    def test_same_results_same_bytes(self, report, load, tmp_path):
        again = write_report(load(seeds=(0, 1)), tmp_path / "again")
        assert [path.name for path in again] == [path.name for path in report]
        for one, two in zip(report, again, strict=True):
            assert one.read_bytes() == two.read_bytes(), one.name

    def test_old_pictures_go_and_foreign_files_stay(self, load, inputs):
        for path in inputs.rglob("metrics.json"):  # also: one scenario, one method, no oracle
            tree = json.loads(path.read_text())
            tree["scenarios"].pop("NL")
            path.write_text(json.dumps(tree))
        folder = inputs / "reports"
        (folder / "pictures").mkdir(parents=True)
        for name in ("pictures/listening-mine.png", "notes.txt"):
            (folder / name).write_text("mine")
        written = write_report(load(methods=("fedavg",), oracle=None), folder)
        assert sum(path.suffix == ".png" for path in written) == 4
        assert not (folder / "pictures/listening-mine.png").exists()
        assert (folder / "notes.txt").read_text() == "mine"

    def test_nothing_is_written_when_inputs_are_bad(self, load, inputs):
        (inputs / "evaluation/fedavg-seed0/roc.csv").unlink()
        with pytest.raises(DataError, match=r"roc\.csv does not exist"):
            write_report(load(), inputs / "reports")
        assert not (inputs / "reports").exists()
