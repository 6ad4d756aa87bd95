"""Checked rows on disk between two readings, apart by scenario.

Memory does not grow with them.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

MOST_SCENARIOS = 200
"""Each is a client and an open file; more is a column that names no scenarios."""


class Spool:
    """One Arrow stream a scenario."""

    def __init__(self, folder: Path, form: pa.Schema) -> None:
        """Write into an empty folder."""
        self._folder, self._form = folder, form
        self._writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}
        self.rows: dict[str, int] = {}
        """Scenario -> rows; in the order in which scenarios came."""

    def write(self, scenario: str, batch: pa.RecordBatch) -> None:
        """Append rows of one scenario."""
        if scenario not in self._writers:
            path = self._folder / f"{len(self._writers)}.arrow"
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writers[scenario] = pa.ipc.new_stream(path, self._form, options=options)
            self.rows[scenario] = 0
        self._writers[scenario].write_batch(batch)
        self.rows[scenario] += batch.num_rows

    def close(self) -> None:
        """End the writing."""
        for writer in self._writers.values():
            writer.close()

    def read(self, scenario: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one scenario as they were written.

        A scenario without rows yields nothing.
        """
        if scenario not in self._writers:
            return
        with pa.ipc.open_stream(self._folder / f"{list(self._writers).index(scenario)}.arrow") as stream:
            yield from stream
