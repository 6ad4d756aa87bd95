"""Files are delivered to the raw folder, from path or address.

Local files are copied or linked.
"""

import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pfmsmt.data.sources.http import download_url

Notify = Callable[[str], None]
"""Takes one line of text."""


class Delivery(NamedTuple):
    """One raw folder that is being filled."""

    folder: Path
    link: bool
    """True: local files are hard-linked where the file system can. False: they are copied."""
    sha256: Mapping[str, str]
    """File name -> the checksum that params.yaml demands."""
    cache: Path
    """Folder for what outlives the raw folder: parts of broken downloads, and checksums of earlier ones."""
    progress: Notify

    def take(self, file: Path, name: str) -> None:
        """Put a local file into the folder under `name`.

        The name may hold folders.
        """
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        origin = file.resolve()
        if self.link:
            try:
                return os.link(origin, target)
            except OSError:
                self.progress(f"{name}: copied, as it cannot be linked here")
        shutil.copyfile(origin, target)

    def download(self, url: str, name: str, instead: str, form: Callable[[Path], str] | None = None) -> None:
        """Download an address's content into the folder.

        `instead` is the key that names a copy on disk. `form` says what is wrong with the file as such.

        Raises:
            ConfigError, DataError: see `download_url`.
        """
        checksum, copy = self.sha256.get(name), f"set {instead} to a copy on your disk"
        download_url(url, self.folder / name, self.progress, cache=self.cache, sha256=checksum, form=form, instead=copy)


def zip_form(path: Path) -> str:
    """Say what is wrong with a file that should be a zip."""
    return "" if zipfile.is_zipfile(path) else "is not a zip file (a login or error page?); check the address"


def table_form(path: Path) -> str:
    """Say what is wrong with a supposed table, by its first bytes."""
    with path.open("rb") as stream:
        head = stream.read(64)
    return (
        "is a web page (of a login, or of an error?) and no table; check the address"
        if head.lstrip()[:1] == b"<"
        else ""
    )
