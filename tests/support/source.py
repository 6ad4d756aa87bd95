"""The package's source as the architecture tests read it: modules, what they define, and their docstrings."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE, STAGES, TESTS = ROOT / "pfmsmt", ROOT / "stages", ROOT / "tests"


class Module(NamedTuple):
    """One file of the package or of the stages."""

    name: str
    """Dotted, as it is imported; a package's ends with `.__init__`."""
    tree: ast.Module
    text: str

    @property
    def room(self) -> str:
        """The folder under pfmsmt/ that holds it; `pfmsmt` and `stages` for what lies in no room."""
        first, *rest = self.name.split(".")
        return rest[0] if len(rest) > 1 else first

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[2]


@functools.cache
def modules(folder: Path) -> list[Module]:
    """Every module of a folder; read once, as it takes a second."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.append(Module(name, ast.parse(text), text))
    return found


def public_names(module: Module) -> Iterator[str]:
    """Classes, functions, type aliases and constants that a module defines at its top, without an underscore."""
    for node in module.tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def summaries(module: Module) -> Iterator[tuple[str, str]]:
    """(where, first paragraph) of the docstrings of a module, its classes and its functions, private ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield f"{module.name}.{getattr(node, 'name', '')}".rstrip("."), " ".join(text.split("\n\n")[0].split())


def imported_names(module: Module) -> Iterator[str]:
    """Modules that it imports, anywhere in it; a relative import begins with its dots."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
