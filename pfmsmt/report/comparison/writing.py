"""Writes the report's files. Everything is rendered before the first byte is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfmsmt.core import files
from pfmsmt.report.comparison.means import metrics_tree, summary_tree
from pfmsmt.report.comparison.page import html
from pfmsmt.report.comparison.pictures import all_pictures
from pfmsmt.report.comparison.plotdata import calibration_table, csv_text, roc_table, rounds_table
from pfmsmt.report.comparison.results import Results
from pfmsmt.report.comparison.text import markdown

PICTURES = "pictures"


def write_report(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write the comparison into `folder` and return the paths.

    metrics.json, summary.json, comparison.md, comparison.html, rounds.csv, roc.csv,
    calibration.csv and a folder of pictures. Other files in `folder` stay; pictures of an earlier report go.
    """
    pictures = all_pictures(results)
    captions = [(f"{PICTURES}/{picture.name}.png", picture.caption) for picture in pictures]
    texts: Mapping[str, str] = {
        "metrics.json": _json(metrics_tree(results)),
        "summary.json": _json(summary_tree(results)),
        "comparison.md": markdown(results, captions),
        "comparison.html": html(results, pictures),
        "rounds.csv": csv_text(rounds_table(results)),
        "roc.csv": csv_text(roc_table(results)),
        "calibration.csv": csv_text(calibration_table(results)),
    }
    with files.new_folder(folder / PICTURES) as temporary:
        for picture in pictures:
            picture.write(temporary)
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return (*(folder / name for name in texts), *(folder / path for path, _ in captions))


def _json(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"  # in the order of display, not of the alphabet
