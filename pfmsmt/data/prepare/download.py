"""Stage download: bring the configured data set into one raw folder."""

import json
from pathlib import Path
from typing import NamedTuple

from pfmsmt.config import Data
from pfmsmt.core import files
from pfmsmt.core.errors import DataError
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.delivery import Delivery, Notify

SOURCE_FILE = "source.json"
DOWNLOADS = "downloads"


class RawContents(NamedTuple):
    """The source and the scenarios of a raw folder."""

    source: str
    scenarios: tuple[str, ...]


def obtain(config: Data, seed: int, folder: Path, progress: Notify) -> None:
    """Replace `folder`, as a whole, by the raw files of `config.source`.

    A `source.json` there names the source and its scenarios.

    Parts of broken downloads, and checksums of whole ones, are kept beside it in a folder `downloads`.

    Raises:
        ConfigError, DataError: the data cannot be had; the folder is then as it was before.
    """
    source = SOURCES[config.source]
    with files.new_folder(folder) as temporary:
        link = config.local_files == "link"
        source.obtain(config, seed, Delivery(temporary, link, config.sha256, folder.with_name(DOWNLOADS), progress))
        contents = RawContents(source.name, source.scenarios(config))
        files.write_json(temporary / SOURCE_FILE, contents._asdict())


def read_contents(folder: Path) -> RawContents:
    """Read which source and scenarios a raw folder holds.

    Raises:
        DataError: `source.json` is missing or damaged.
    """
    path = folder / SOURCE_FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return RawContents(str(tree["source"]), tuple(tree["scenarios"]))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; run `dvc repro download` first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); run `dvc repro -f download`") from None
