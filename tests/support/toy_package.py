"""Packages with a method of their own, as pip would install them: modules and a dist-info folder."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.documents import ROOT, code_blocks

PAGE = ROOT / "docs/how-to/add-a-method.md"


def printed_method() -> str:
    """Return the file of the how-to, as printed."""
    (block,) = [block for kind, block in code_blocks(PAGE.read_text(encoding="utf-8")) if kind == "python"]
    return block


def install(
    folder: Path, package: str, points: Mapping[str, str], modules: Mapping[str, str], version: str = "1.0"
) -> Path:
    """Write a package's modules and its entry points (name -> module:object) into a folder of the module path."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8")
    lines = ["[pfmsmt.methods]", *(f"{name} = {place}" for name, place in points.items())]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def run_beside(*words: str, packages: Path, root: Path = ROOT, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run this Python with the packages of a folder beside those of a checkout."""
    environment = {**os.environ, "PYTHONPATH": f"{packages}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
