"""AliExpress search logs (Li et al., CIKM 2020), in either published form.

Tianchi publishes user rows and item rows in zips (see tianchi.py); the MTReclib project distributes them joined, one
CSV with a header per split.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pfmsmt.config import Data
from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.sources.aliexpress import tianchi
from pfmsmt.data.sources.aliexpress.columns import (
    ALIEXPRESS_COLUMNS,
    ALIEXPRESS_TASKS,
    CATEGORICAL,
    NUMERICAL,
    SEARCH_ID,
)
from pfmsmt.data.sources.base import RAW_SPLITS, Dataset, Opening, Source, record_schema, with_block_values
from pfmsmt.data.sources.delivery import Delivery, zip_form
from pfmsmt.data.tables.csv import read_blocks
from pfmsmt.data.tables.faults import Fault, Faults
from pfmsmt.data.tables.prefetch import ahead
from pfmsmt.data.tables.raw_files import read_header
from pfmsmt.data.tables.values import Column

_HOME = "https://tianchi.aliyun.com/dataset/74690"
_JOINED_COLUMNS = (
    Column(SEARCH_ID, "id"),
    *(Column(name, "category") for name in CATEGORICAL),
    *(Column(name, "number") for name in NUMERICAL),
    *(Column(task.label, "label") for task in ALIEXPRESS_TASKS),
)


def _obtain(config: Data, seed: int, delivery: Delivery) -> None:
    """Link (or copy) the files from `data.aliexpress.path`, or download them from `data.aliexpress.url`.

    Raises:
        ConfigError: both are set, or the path does not exist.
        DataError: neither is set, files are missing, or the server cannot be reached.
    """
    block = config.aliexpress
    if block.path is not None and block.url is not None:
        raise ConfigError("params.yaml sets both data.aliexpress.path and data.aliexpress.url; set one to null")
    if block.path is not None:
        _from_path(Path(block.path).expanduser(), block.scenarios, delivery)
    elif block.url is not None:
        _from_url(block.url, block.scenarios, delivery)
    else:
        files = ", ".join(tianchi.zip_name(scenario) for scenario in block.scenarios)
        raise DataError(
            f"the AliExpress data set must be fetched by hand: its home, {_HOME}, wants a login.\n"
            f"Download {files} from there into one folder and set data.aliexpress.path in params.yaml to that "
            "folder (or data.aliexpress.url to an address under which you keep these files)."
        )


def open_aliexpress(opening: Opening) -> Dataset:
    """Open a raw folder that holds either form.

    User rows are laid out in the scratch folder when first needed.
    """
    raw = opening.raw
    users: dict[tuple[str, str], tianchi.Users] = {}

    def read(scenario: str, split: str, faults: Faults) -> Iterator[pa.RecordBatch]:
        files = _held(raw, scenario)
        if files == [tianchi.zip_name(scenario)]:
            packed = raw / files[0]
            key = scenario, split
            if key not in users:
                users[key] = tianchi.read_users(packed, scenario, split, opening.scratch, faults)
            return tianchi.read_items(packed, scenario, split, users[key], opening.scratch, faults)
        if files:
            return _read_joined(raw / files[RAW_SPLITS.index(split)], faults)
        raise DataError(
            f"{raw} holds no data of scenario {scenario}: {_expected(scenario)}; run `dvc repro -f download`"
        )

    def why_empty(scenario: str, part: str) -> str:
        return "(its test files hold no good row); obtain them again" if part == "test" else ""

    return Dataset(ALIEXPRESS_COLUMNS, ALIEXPRESS_TASKS, opening.scenarios, read, why_empty)


def _folder_names(scenario: str) -> tuple[str, ...]:
    """Return the names that a scenario's folder may have."""
    return (scenario, f"AliExpress_{scenario}")


def _read_joined(path: Path, faults: Faults) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one joined file.

    Columns are found by header, in any order, and others are ignored.

    Raises:
        DataError: missing, a column missing or there twice, or what `faults` refuses: a faulty value, a conversion
            without a click.
    """
    header = read_header(path, [column.name for column in _JOINED_COLUMNS])
    with path.open("rb") as stream:
        for block in ahead(read_blocks(stream, str(path), _JOINED_COLUMNS, faults, header=header)):
            wrong = (block.columns["conversion"] != 0) & (block.columns["click"] == 0)
            kind = "conversion is 1 but click is 0"
            faults.take([Fault(str(path), int(row), "", kind, kind) for row in block.rows[wrong]])
            good = block.take(~wrong) if wrong.any() else block
            arrays = [pa.array(good.columns[column.name]) for column in _JOINED_COLUMNS]
            yield pa.RecordBatch.from_arrays(arrays, schema=record_schema(ALIEXPRESS_COLUMNS, ALIEXPRESS_TASKS))


def _held(folder: Path, scenario: str) -> list[str]:
    """Return the files of a scenario, relative to the folder.

    [] if it is not complete in any form.
    """
    packed = tianchi.zip_name(scenario)
    if (folder / packed).is_file():
        return [packed]
    for name in _folder_names(scenario):
        files = [f"{name}/{split}.csv" for split in RAW_SPLITS]
        if all((folder / file).is_file() for file in files):
            return files
    return []


def _expected(scenario: str) -> str:
    folders = " or ".join(f"{name}/" for name in _folder_names(scenario))
    return f"expected {tianchi.zip_name(scenario)}, or train.csv and test.csv in {folders}"


def _from_path(path: Path, scenarios: tuple[str, ...], delivery: Delivery) -> None:
    if not path.exists():
        raise ConfigError(f"data.aliexpress.path: {path} does not exist")
    origin = path.parent if path.is_file() else path
    held = {scenario: _held(origin, scenario) for scenario in scenarios}
    missing = [scenario for scenario, files in held.items() if not files]
    if missing:
        faults = "\n".join(f"  {scenario}: {_expected(scenario)}" for scenario in missing)
        raise DataError(
            f"data.aliexpress.path: {origin} lacks scenarios\n{faults}\n"
            f"Get them from {_HOME}, or take them out of data.aliexpress.scenarios."
        )
    for scenario, files in held.items():
        for file in files:
            delivery.take(origin / file, file)
        delivery.progress(f"{scenario}: {', '.join(files)}")


def _from_url(base: str, scenarios: tuple[str, ...], delivery: Delivery) -> None:
    for scenario in scenarios:
        name = tianchi.zip_name(scenario)
        url = f"{base.rstrip('/')}/{name}"
        delivery.download(url, name, "data.aliexpress.path", zip_form)
        delivery.progress(f"{scenario}: {name}, {(delivery.folder / name).stat().st_size / 2**20:,.1f} MiB")


def _alone(config: Data, scenario: str) -> Data:
    return with_block_values(config, "aliexpress", scenarios=(scenario,))


ALIEXPRESS = Source(
    name="aliexpress",
    scenarios=lambda config: config.aliexpress.scenarios,
    obtain=_obtain,
    open=open_aliexpress,
    alone=_alone,
)
