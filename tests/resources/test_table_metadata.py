"""What people see of a table in Dagster: columns, offsets, and a preview in which nothing is active."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from resources.table_metadata import OffsetRanges, column_schema, described, preview


def test_columns_have_their_types_and_descriptions():
    (column,) = column_schema(pa.schema([described("lat", pa.float64(), "Degrees north.")])).columns
    assert (column.name, column.type, column.description) == ("lat", "double", "Degrees north.")


def test_the_preview_is_a_markdown_table_of_the_first_rows():
    shown = preview(pa.table({"type": ["car"] * 9, "total": range(9)})).value.splitlines()
    assert shown[:3] == ["| type | total |", "| --- | --- |", "| car | 0 |"]
    assert len(shown) == 7


def test_the_preview_of_nothing_says_so():
    assert preview(pa.table({"type": pa.array([], pa.string())})).value == "no rows"


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "![a](http://127.0.0.1/x.png)",
        "a | b",
        "line\nline\r\n\u2028line",
        "`code` **bold** _it_ ~~no~~ # no",
        "\x00\x1b[31m\u202e",
        "&lt;b&gt;",
        "www.example.com http://example.com a@example.com",
    ],
)
def test_nothing_in_the_preview_is_active(hostile):
    (row,) = preview(pa.table({"value": [hostile]})).value.splitlines()[2:]
    cell = row.removeprefix("| ").removesuffix(" |")
    assert not set(cell) & set('<>[]()!|`*_~./@"\\\x00\x1b\u202e\u2028')
    assert preview(pa.table({"value": [hostile.encode()]})).value.count("\n") == 2


def test_numbers_and_times_are_shown_as_they_are():
    row = {
        "a": 1.5,
        "b": Decimal("0.10"),
        "c": dt.datetime(2026, 1, 1, 12, 30, tzinfo=dt.UTC),
        "d": dt.date(2026, 1, 1),
    }
    shown = preview(pa.Table.from_pylist([row])).value.splitlines()[2]
    assert shown == "| 1.5 | 0.10 | 2026-01-01 12:30:00+00:00 | 2026-01-01 |"


def test_long_values_are_cut_and_null_is_empty():
    shown = preview(pa.table({"value": ["x" * 1_000_000, None]})).value
    assert len(shown) < 300
    assert shown.splitlines()[3].strip("| ") == ""


def test_offsets_are_the_first_and_last_of_each_partition():
    ranges = OffsetRanges()
    ranges.add(pa.table({"partition": [0, 1, 0], "offset": [5, 7, 4]}))
    ranges.add(pa.table({"partition": [0], "offset": [9]}))
    ranges.add(pa.table({"type": ["car"]}))
    assert ranges.by_partition() == {"0": {"from": 4, "to": 9}, "1": {"from": 7, "to": 7}}
