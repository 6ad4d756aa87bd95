"""AliExpress search logs (Li et al., CIKM 2020), in either form that is in circulation."""

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pfmsmt.config import Data
from pfmsmt.data.fetch import fetch
from pfmsmt.data.sources import aliexpress_joined, aliexpress_raw
from pfmsmt.data.sources.aliexpress_columns import COLUMNS, TASKS
from pfmsmt.data.sources.contract import RAW_SPLITS, Progress, Source
from pfmsmt.errors import ConfigError, DataError

HOME = "https://tianchi.aliyun.com/dataset/74690"


def obtain(config: Data, seed: int, folder: Path, progress: Progress) -> None:
    """Link (or copy) the files from `data.aliexpress.path`, or download them from `data.aliexpress.url`.

    Raises:
        ConfigError: both are set, or the path does not exist.
        DataError: neither is set, files are missing, or the server cannot be reached.
    """
    block = config.aliexpress
    if block.path is not None and block.url is not None:
        raise ConfigError("params.yaml sets both data.aliexpress.path and data.aliexpress.url; set one to null")
    if block.path is not None:
        _from_path(Path(block.path).expanduser(), block.scenarios, folder, progress)
    elif block.url is not None:
        _from_url(block.url, block.scenarios, folder, progress)
    else:
        files = ", ".join(aliexpress_raw.file_name(scenario) for scenario in block.scenarios)
        raise DataError(
            f"the AliExpress data set must be fetched by hand: its home, {HOME}, wants a login.\n"
            f"Download {files} from there into one folder and set data.aliexpress.path in params.yaml to that "
            "folder (or data.aliexpress.url to an address under which you keep these files)."
        )


def read(raw: Path, scenario: str, split: str) -> Iterator[pa.RecordBatch]:
    """Yield a scenario's rows from whichever form the raw folder holds.

    Raises:
        DataError: no file, or see `aliexpress_raw.read` and `aliexpress_joined.read`.
    """
    files = _held(raw, scenario)
    if files == [aliexpress_raw.file_name(scenario)]:
        return aliexpress_raw.read(raw / files[0], scenario, split)
    if files:
        return aliexpress_joined.read(raw / files[RAW_SPLITS.index(split)])
    raise DataError(f"{raw} holds no data of scenario {scenario}: {_expected(scenario)}; run `dvc repro -f download`")


def _held(folder: Path, scenario: str) -> list[str]:
    """Return the files of a scenario, relative to the folder; [] if it is not complete in any form."""
    packed = aliexpress_raw.file_name(scenario)
    if (folder / packed).is_file():
        return [packed]
    for name in aliexpress_joined.folder_names(scenario):
        files = [f"{name}/{split}.csv" for split in RAW_SPLITS]
        if all((folder / file).is_file() for file in files):
            return files
    return []


def _expected(scenario: str) -> str:
    joined = " or ".join(f"{name}/" for name in aliexpress_joined.folder_names(scenario))
    return f"expected {aliexpress_raw.file_name(scenario)}, or train.csv and test.csv in {joined}"


def _from_path(path: Path, scenarios: tuple[str, ...], folder: Path, progress: Progress) -> None:
    if not path.exists():
        raise ConfigError(f"data.aliexpress.path: {path} does not exist")
    origin = path.parent if path.is_file() else path
    held = {scenario: _held(origin, scenario) for scenario in scenarios}
    missing = [scenario for scenario, files in held.items() if not files]
    if missing:
        faults = "\n".join(f"  {scenario}: {_expected(scenario)}" for scenario in missing)
        raise DataError(
            f"data.aliexpress.path: {origin} lacks scenarios\n{faults}\n"
            f"Get them from {HOME}, or take them out of data.aliexpress.scenarios."
        )
    for scenario, files in held.items():
        for file in files:
            _place((origin / file).resolve(), folder / file)
        progress(f"{scenario}: {', '.join(files)}")


def _place(file: Path, target: Path) -> None:
    """Hard-link, as the files are gigabytes; copy where the file system cannot."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _from_url(base: str, scenarios: tuple[str, ...], folder: Path, progress: Progress) -> None:
    for scenario in scenarios:
        name = aliexpress_raw.file_name(scenario)
        url = f"{base.rstrip('/')}/{name}"
        fetch(url, folder / name, progress)
        if not zipfile.is_zipfile(folder / name):
            raise DataError(f"{url} is not a zip file (a login or error page?); check data.aliexpress.url")
        progress(f"{scenario}: {name}, {(folder / name).stat().st_size / 2**20:,.1f} MiB")


SOURCE = Source(
    name="aliexpress",
    columns=COLUMNS,
    tasks=TASKS,
    scenarios=lambda config: config.aliexpress.scenarios,
    obtain=obtain,
    read=read,
)
