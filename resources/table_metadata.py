"""What Dagster shows of a table: its columns and a few of its rows."""

import datetime as dt
from decimal import Decimal
from typing import Any

import dagster as dg
import pyarrow as pa

PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 60
DESCRIPTION = b"description"


def described(name: str, kind: pa.DataType, description: str, nullable: bool = True) -> pa.Field:
    """A column and what it means, of which Dagster's catalogue shows both."""
    return pa.field(name, kind, nullable, {DESCRIPTION: description.encode()})


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The columns of `schema` as Dagster's metadata, with their descriptions."""
    return dg.TableSchema(
        [
            dg.TableColumn(field.name, str(field.type), (field.metadata or {}).get(DESCRIPTION, b"").decode())
            for field in schema
        ]
    )


class OffsetRanges:
    """Per Kafka partition the first and the last offset of rows that say where they came from."""

    def __init__(self) -> None:
        self._ranges: dict[int, tuple[int, int]] = {}

    def add(self, rows: pa.Table) -> None:
        """Widen the ranges by some rows; rows without the columns `partition` and `offset` are passed over."""
        if not {"partition", "offset"} <= set(rows.column_names):
            return
        found = rows.group_by("partition").aggregate([("offset", "min"), ("offset", "max")])
        for row in found.to_pylist():
            first, last = self._ranges.get(row["partition"], (row["offset_min"], row["offset_max"]))
            self._ranges[row["partition"]] = (min(first, row["offset_min"]), max(last, row["offset_max"]))

    def by_partition(self) -> dict[str, dict[str, int]]:
        """The ranges as Dagster's metadata."""
        return {str(p): {"from": first, "to": last} for p, (first, last) in sorted(self._ranges.items())}


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table in which nothing is active: no HTML, link, image or line break."""
    if rows.num_rows == 0:
        return dg.MetadataValue.md("no rows")
    head = rows.slice(0, PREVIEW_ROWS).to_pylist()
    lines = [
        rows.column_names,
        ["---"] * rows.num_columns,
        *([_cell(row[c]) for c in rows.column_names] for row in head),
    ]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, int | float | Decimal | dt.date):
        return "" if value is None else str(value)
    text = repr(value)[1:] if isinstance(value, bytes) else str(value)
    shown = text if len(text) <= PREVIEW_CHARACTERS else f"{text[:PREVIEW_CHARACTERS]}…"
    printable = "".join(c if c.isprintable() else " " for c in shown)
    # Numeric entities stay text wherever Markdown looks for syntax or for links (CommonMark 6.2).
    return "".join(c if c.isalnum() or c in " -:," else f"&#{ord(c)};" for c in printable)
