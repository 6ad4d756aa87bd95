"""Arrow data: streams of requests and answers, and batches of Parquet files.

Nothing in a stream is trusted: kinds of columns and sizes are checked on its metadata, before a buffer is read, and
compressed bodies are refused, since a few bytes of them may unpack to gigabytes.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pfmsmt.core.errors import SchemaError
from pfmsmt.data.tables.values import convert, refuse_type
from pfmsmt.serving.rows import FeatureRows, RowReader

STREAM = "application/vnd.apache.arrow.stream"


class TooManyRows(Exception):
    """A stream announces more rows than a request may have."""


def read_stream(body: bytes, reader: RowReader, max_rows: int) -> FeatureRows:
    """Read a request's Arrow IPC stream.

    Raises:
        SchemaError: no Arrow stream, a compressed one, or columns or values that do not fit.
        TooManyRows: before any of them is read.
    """
    try:
        messages = _messages(body, max_rows)
        stream = pa.ipc.open_stream(messages)
        # By the schema alone, before a buffer of the columns is read.
        _refuse_dictionaries(stream.schema, reader)
        check_types(stream.schema, reader)
        stream = pa.ipc.open_stream(messages, options=_only(stream.schema, reader))
        table = stream.read_all()
        # Offsets and lengths within the buffers, too: nobody but the sender has checked them.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, struct.error, IndexError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SchemaError(f"the body is not a readable Arrow IPC stream: {reason}") from None
    batches = table.combine_chunks().to_batches()
    return read_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema), reader)


def read_batch(batch: pa.RecordBatch, reader: RowReader) -> FeatureRows:
    """Check the columns of an Arrow batch.

    Raises:
        SchemaError: a column is missing, twice there or of a wrong type; a value is null or does not fit.
    """
    check_types(batch.schema, reader)
    columns = {
        name: convert(array, reader.columns[name])
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
        if name in reader.columns
    }
    return reader.gather(columns, batch.num_rows)


def check_types(schema: pa.Schema, reader: RowReader) -> None:
    """Refuse columns whose types do not fit, before reading a value.

    Raises:
        SchemaError: names the column and its type.
    """
    names = schema.names
    reader.check_present(frozenset(names))
    for name, kind in zip(names, schema.types, strict=True):
        column = reader.columns.get(name)
        if column is not None:
            refuse_type(column, kind)
    if len(set(names)) < len(names):
        twice = [name for name in names if name in reader.columns and names.count(name) > 1]
        if twice:
            raise SchemaError(f"column {twice[0]} is there {names.count(twice[0])} times")


def _refuse_dictionaries(schema: pa.Schema, reader: RowReader) -> None:
    """Refuse dictionaries among a request's columns.

    The rule for values would take them, but nothing here bounds their sizes before they are read.
    """
    for field in schema:
        if field.name in reader.columns and pa.types.is_dictionary(field.type):
            raise SchemaError(f"column {field.name}, row 0: dictionaries are not taken, {field.type.value_type} is")


def write_stream(columns: Mapping[str, Any], notes: Mapping[str, str]) -> bytes:
    """Return one Arrow IPC stream of columns [B].

    `notes` become the metadata of its schema.
    """
    table = pa.table(dict(columns)).replace_schema_metadata(dict(notes))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _only(schema: pa.Schema, reader: RowReader) -> pa.ipc.IpcReadOptions:
    """Read the model's columns and no others, whatever they may be."""
    wanted = [place for place, name in enumerate(schema.names) if name in reader.columns]
    return pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)


def _messages(body: bytes, max_rows: int) -> pa.Buffer:
    """Look at every message's metadata, and return the body."""
    rows = 0
    for length, compressed in _batches(body):
        if compressed:
            raise SchemaError("compressed Arrow bodies are not taken; write the stream without compression")
        rows += length
        if not length >= 0 or rows > max_rows:
            raise TooManyRows(f"{rows} rows; a request may have {max_rows}")
    return pa.py_buffer(body)


def _batches(body: bytes) -> Iterator[tuple[int, bool]]:
    """Yield (rows, compressed?) of each record batch in a stream.

    The entries of a dictionary are no rows.
    """
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(body)):
        if message.type == "dictionary":
            yield 0, _record_batch(message.metadata.to_pybytes(), dictionary=True)[1]
        if message.type == "record batch":
            yield _record_batch(message.metadata.to_pybytes())


def _record_batch(metadata: bytes, dictionary: bool = False) -> tuple[int, bool]:
    """Read a record batch's row count and compression from its flatbuffer (Message.fbs).

    pyarrow says neither before it has unpacked the buffers. A dictionary's batch is a field of its message.
    """
    batch = _table(metadata, struct.unpack_from("<I", metadata, 0)[0], 2)
    if dictionary:
        batch = _table(metadata, batch, 1)
    rows = _field(metadata, batch, 0)
    length = struct.unpack_from("<q", metadata, rows)[0] if rows is not None else 0
    return length, _field(metadata, batch, 3) is not None


def _table(metadata: bytes, table: int, index: int) -> int:
    """Return the place of the table that a flatbuffer field references."""
    field = _field(metadata, table, index)
    if field is None:
        raise SchemaError("an Arrow message has no header")
    return int(field + struct.unpack_from("<I", metadata, field)[0])


def _field(metadata: bytes, table: int, index: int) -> int | None:
    """Return the place of a field in a flatbuffer table; None: absent."""
    entry = table - struct.unpack_from("<i", metadata, table)[0]
    if entry < 0 or 4 + 2 * index >= struct.unpack_from("<H", metadata, entry)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, entry + 4 + 2 * index)[0]
    return table + offset if offset else None
