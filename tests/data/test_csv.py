"""Numbers out of a CSV, whatever the size of blocks."""

import csv
import io

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfmsmt.core.errors import DataError
from pfmsmt.data.tables.csv import find_quotes, read_blocks
from pfmsmt.data.tables.faults import Faults
from pfmsmt.data.tables.values import Column

COLUMNS = (Column("key", "id"), Column("kind", "category"), Column("size", "number"), Column("done", "label"))
LINE = b"12345678901234567,7,0.5,1\n"


def blocks(text, block_bytes=64, **options):
    return list(read_blocks(io.BytesIO(text), "x.csv", COLUMNS, Faults(), block_bytes=block_bytes, **options))


def test_blocks_know_their_first_row_and_ids_keep_all_digits():
    held = blocks(LINE * 10)
    assert len(held) > 2
    sizes = [len(block.columns["key"]) for block in held]
    assert sum(sizes) == 10
    assert [row for block in held for row in block.rows] == list(range(1, 11))
    assert {int(key) for block in held for key in block.columns["key"]} == {12345678901234567}
    assert [values.dtype.name for values in held[0].columns.values()] == ["int64", "int64", "float64", "int8"]


@pytest.mark.slow(1)
@settings(deadline=None)  # threads are started in each
@given(good=st.integers(0, 40), block_bytes=st.integers(40, 400), header=st.booleans())
def test_a_fault_has_the_same_place_whatever_the_blocks(good, block_bytes, header):
    """Row = good rows before it, one for itself, one more under a header."""
    top = b"key,kind,size,done\n" if header else b""
    options = {"header": ["key", "kind", "size", "done"]} if header else {}
    row = good + 1 + header
    for line, message in (
        (b"1,2,x,0\n", rf"^x.csv, row {row}, column 3 \(size\): 'x' is not a number$"),
        (b"1,2,nan,0\n", rf"^x.csv, row {row}, column 3 \(size\): nan is not a finite number$"),
        (b"1,2,3,2\n", rf"^x.csv, row {row}, column 4 \(done\): 2 is not a label \(0, 1\)$"),
        (b"1,2\n", rf"^x.csv, row {row}: 2 columns, expected 4$"),
    ):
        with pytest.raises(DataError, match=message):
            blocks(top + LINE * good + line + LINE * 3, block_bytes, **options)


def test_columns_are_picked_by_name_under_a_header():
    (block,) = blocks(b"done,other,size,kind,key\n1,text,0.5,7,3\n", header=["done", "other", "size", "kind", "key"])
    assert {name: values.tolist() for name, values in block.columns.items()} == {
        "key": [3],
        "kind": [7],
        "size": [0.5],
        "done": [1],
    }


def test_a_binary_file_is_refused_not_crashed_on():
    with pytest.raises(DataError, match=r"^x.csv"):
        blocks(bytes(range(256)) * 40)


NOTED = (*COLUMNS, Column("note", "text"))
NOTE = st.text('ab ",\n0', min_size=1, max_size=12).filter(lambda note: note.strip() and len(note.splitlines()) < 4)


@pytest.mark.slow(1)
@settings(deadline=None)
@given(notes=st.lists(NOTE, min_size=1, max_size=20), block_bytes=st.integers(80, 400))
def test_text_of_several_lines_comes_out_as_it_went_in(notes, block_bytes):
    """No line of such a note is a row: the last of four numbers is a label, and a note has three commas at most."""
    notes = [note.replace(",", ";", max(note.count(",") - 3, 0)) for note in notes]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(
        [["key", "kind", "size", "done", "note"], *([at, 7, 0.5, 1, note] for at, note in enumerate(notes))]
    )
    header = ["key", "kind", "size", "done", "note"]
    held = list(
        read_blocks(
            io.BytesIO(out.getvalue().encode()), "x.csv", NOTED, Faults(), header=header, quoted=True,
            block_bytes=block_bytes,
        )
    )  # fmt: skip
    assert [note for block in held for note in block.columns["note"]] == notes
    assert [row for block in held for row in block.rows] == list(range(2, len(notes) + 2))


@pytest.mark.slow(1)
@settings(max_examples=300, deadline=None)
@given(st.text('a,"\n', max_size=16))
def test_rows_end_where_pyarrow_ends_them(text):
    """All quotes at random: doubled, within values, where values are empty. pyarrow tells of rows it leaves out."""
    data = f"{text}\n".encode()
    quotes = find_quotes(data, ",")
    if quotes.open_at is not None:
        return
    wide = []
    parse = pa_csv.ParseOptions(
        newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=lambda row: wide.append(row) or "skip"
    )
    read = pa_csv.ReadOptions(column_names=["a", "b"], use_threads=False)
    convert = pa_csv.ConvertOptions(column_types={"a": pa.string(), "b": pa.string()})
    held = pa_csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)
    assert held.num_rows + len(wide) == len(quotes.ends)
    assert quotes.ends.size + quotes.inner.size == data.count(b"\n")


@pytest.mark.parametrize("line", ["a,b,c,1,d", "1,2,3,45,d", "1,2,,nan,", "1,2,3,,d", "1,2,3,1", "1,2,3,1,d,e"])
def test_a_line_of_text_that_is_no_row(line):
    """Lines with as many cells as a row, but no number, or no label, where one should be; or with fewer or more."""
    text = f'1,2,3,1,"see\n{line}\nthere"\n'.encode()
    (block,) = read_blocks(io.BytesIO(text), "x.csv", NOTED, Faults(), quoted=True)
    assert block.columns["note"].tolist() == [f"see\n{line}\nthere"]


@pytest.mark.parametrize("block_bytes", [60, 2**20])
def test_a_quote_within_a_value_is_a_letter(block_bytes):
    """The inch sign opens nothing, so the row after it is one, and the quoted line end is none."""
    text = b'1,2,3,1,27" wide\n' * 5 + b'1,2,3,1,"a\nb"\n' * 5 + b"1,2,3,x,c\n"
    faults = io.BytesIO(text)
    with pytest.raises(DataError, match=r"^x.csv, row 11, column 4 \(done\): 'x' is not a number"):
        list(read_blocks(faults, "x.csv", NOTED, Faults(), quoted=True, block_bytes=block_bytes))
    held = list(read_blocks(io.BytesIO(text[:-10]), "x.csv", NOTED, Faults(), quoted=True, block_bytes=block_bytes))
    assert [note for block in held for note in block.columns["note"]] == ['27" wide'] * 5 + ["a\nb"] * 5


@pytest.mark.parametrize("block_bytes", [40, 2**20])
def test_a_quote_missing_where_all_values_are_quoted(block_bytes):
    """The next row's first quote closes it, and that row's first value follows."""
    row = b'"1","2","3","1","a"\n'
    text = io.BytesIO(row * 2 + b'"1","2","3","1","a\n' + row * 3)
    with pytest.raises(
        DataError, match=r"^x.csv, row 3: (a quote opens .*: text follows its closing quote|longer than)"
    ):
        list(read_blocks(text, "x.csv", NOTED, Faults(), quoted=True, block_bytes=block_bytes))


@pytest.mark.parametrize("block_bytes", [40, 2**20])
def test_a_quote_that_swallows_rows_is_refused_by_its_row(block_bytes):
    plain, opened, closed = b"1,2,3,1,a\n", b'1,2,3,1,"a\n', b'1,2,3,1,a"\n'
    for text in (opened + plain + closed, opened + closed, opened + plain * 3, opened + plain + b'1,2,3,1,"a"\n'):
        with pytest.raises(DataError, match=r"^x.csv, row 3: (a quote opens there|longer than 40 bytes)"):
            list(
                read_blocks(
                    io.BytesIO(plain * 2 + text), "x.csv", NOTED, Faults(), quoted=True, block_bytes=block_bytes
                )
            )
