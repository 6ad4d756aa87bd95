"""Compares all runs, in files and in the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING

from pfmsmt.config import Config
from pfmsmt.core.console import say
from pfmsmt.core.layout import CARD, EVALUATION, MODELS, ORACLE, REPORTS, read_run
from pfmsmt.data.schema import Schema
from pfmsmt.methods.catalogue import method_facts
from pfmsmt.report.comparison.inputs import Results, load_results
from pfmsmt.report.comparison.metric_tables import terminal_comparison
from pfmsmt.report.comparison.overfitting import remedies_of
from pfmsmt.report.comparison.verdicts import terminal_findings

if TYPE_CHECKING:
    from pfmsmt.tracking import Store


def compare(config: Config, schema: Schema, tracking: "Store", root: Path) -> None:
    """Write `reports/`, and copy it to every compared MLflow run.

    The data card goes along, if there is one.

    Raises:
        DataError: an evaluation is missing or damaged.
    """
    # Not at the top: printing a table need not wait for matplotlib.
    from pfmsmt.report.comparison.comparison_page import write_comparison

    results = results_of(config, schema, root)
    paths = write_comparison(results, root / REPORTS)
    pictures = [path for path in paths if path.suffix == ".png"]
    tables = [path for path in paths if path.suffix in (".md", ".html", ".json")]
    card = [root / path for path in CARD if (root / path).exists()]
    for run in results.runs:
        ids = tracking.locate_run(read_run(root, run.method, run.seed), f"train@{run.method}-{run.seed}")
        run_id = ids["run_id"]
        tracking.log_run_files(run_id, pictures, "comparison/pictures")
        tracking.log_run_files(run_id, tables, "comparison")
        tracking.log_run_files(run_id, card, "data")
    say(f"compared {len(results.runs)} runs: {REPORTS / 'comparison.html'}")


def results_of(config: Config, schema: Schema, root: Path) -> Results:
    """Load all runs that params.yaml asks for."""
    facts = {method: method_facts(method, config.methods) for method in config.train.methods}
    deployable = [method for method, fact in facts.items() if fact.deployable]
    return load_results(
        [(method, seed) for method in config.train.methods for seed in config.train.seeds],
        evaluation=root / EVALUATION,
        models=root / MODELS,
        oracle=root / ORACLE if config.data.source == "synthetic" else None,
        scenarios=schema.scenarios,
        tasks=[task.name for task in schema.tasks],
        references=[method for method in config.train.methods if method not in deployable],
        confidence=config.evaluate.confidence if config.evaluate.bootstrap else None,
        # The others' clients send nothing: each trains alone.
        federated=[method for method in deployable if facts[method].shared],
        remedies={method: remedies_of(method, config.methods) for method in config.train.methods},
        counts=schema.counts,
    )


def comparison_text(config: Config, schema: Schema, root: Path) -> str:
    """Return the table, what it says, and the next commands."""
    results = results_of(config, schema, root)
    return (
        f"\n{terminal_comparison(results)}\n{terminal_findings(results)}\n"
        f"The whole comparison: {REPORTS / 'comparison.html'}\n\n"
        "Next:\n"
        "  make ui                                  compare the runs in the MLflow UI\n"
        "  make serve                               serve all champions over HTTP\n"
        "  dvc exp run -S methods.pf_msmtrec.rank=8 try another value; make experiments compares\n"
    )
