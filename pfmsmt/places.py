"""Where the stages read and write, relative to the project's folder; dvc.yaml names the same places."""

from pathlib import Path

RAW = Path("data/raw")
CLIENTS = Path("data/clients")
SCHEMA = CLIENTS / "schema.json"
ORACLE = RAW / "oracle.json"
MODELS = Path("models")
RUNS = Path("runs")
EVALUATION = Path("evaluation")
REPORTS = Path("reports")
CARD = (REPORTS / "data.md", REPORTS / "data.html")
CHECKPOINTS = Path("checkpoints")
TUNING = Path("tuning")
CHAMPIONS = Path("champions.json")


def run_name(method: str, seed: int) -> str:
    """Return the one name of a training run: of its folders, its stage and its MLflow run."""
    return f"{method}-seed{seed}"
