"""Finds pickles among a model's files: whoever can write the registry must not run code where it is read."""

from pathlib import Path

from pfmsmt.errors import TrackingError

_SUFFIXES = frozenset({".pkl", ".pickle", ".pck", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".pt2", ".ckpt"})
_PROTOCOLS = tuple(bytes((0x80, version)) for version in range(2, 6))
"""How pickles of protocol 2 to 5 begin."""


def refuse_pickles(folder: Path, name: str) -> None:
    """Look at all files of a model.

    Raises:
        TrackingError: one is a pickle, by its name or by how it begins; it is named.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            begin = file.read(2)
        # The first two bytes of a safetensors file are the low ones of a length; they may be anything.
        pickled = begin in _PROTOCOLS and path.suffix != ".safetensors"
        if path.suffix.lower() in _SUFFIXES or pickled:
            raise TrackingError(
                f"{name} holds the pickle {path.relative_to(folder)}, and loading one runs code of whoever wrote it; "
                "register a model that pfmsmt has logged"
            )
