"""Delta tables: new rows and the marks that say how far they go, committed as one."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

import dagster as dg
import msgspec
import pyarrow as pa
from deltalake import (
    BloomFilterProperties,
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError

from resources.lease import lease
from resources.spark import SparkResource
from resources.table_metadata import PREVIEW_ROWS, OffsetRanges, column_schema, preview

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

BLOOM_FILTER_FALSE_POSITIVES = 0.0001
RESTORE = (
    "Restore it from a backup, or move the table's folder away, and with it those of the tables made from it; the next "
    "run builds them anew."
)


class TableError(Exception):
    """A table's folder cannot be read or is not ours, so it is left alone; the message says what to do."""


@dataclass(frozen=True)
class TableDefinition:
    """What a Delta table is: its columns, the column that partitions it, and those looked up by value."""

    schema: pa.Schema
    partition_by: str | None = None
    bloom_filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """The rows in which a counting column is above `after` and not above `upto`, and how many they are at most."""

    column: str
    after: int
    upto: int
    records: int

    @property
    def where(self) -> str:
        """The span as a SQL condition, which file statistics can prune."""
        return f"{self.column} > {self.after} AND {self.column} <= {self.upto}"


class Snapshot:
    """A Delta table, for reading: its rows as a lazy DataFrame, its marks, and what its log knows without a scan."""

    def __init__(self, path: Path, table: DeltaTable, spark: SparkResource) -> None:
        """`table` is the version to answer from; `rows` reads the newest."""
        self.path = path
        self.table = table
        self._spark = spark

    def mark(self, name: str) -> int | None:
        """The version last committed under application id `name` (Delta protocol, transaction identifiers)."""
        return self.table.transaction_version(name)

    def rows(self, span: Span | None = None) -> "DataFrame":
        """The table's rows, or those of a span."""
        frame = self._spark.session.read.format("delta").load(str(self.path))
        return frame if span is None else frame.where(span.where)

    def count(self) -> int:
        """How many rows the table has, by its log."""
        return sum(self._files()["num_records"].to_pylist())

    def spans(self, column: str, after: int, max_records: int, upto: int | None = None) -> Iterator[Span]:
        """What lies beyond `after` in an integer column, by the files' statistics, in spans of about `max_records`.

        A span never splits a value of the column, so one value's rows may exceed `max_records`.
        """
        files = self._files()
        sizes: dict[int, int] = {}
        for row in files.select(["num_records", f"min.{column}", f"max.{column}"]).to_pylist():
            end = row[f"max.{column}"] if upto is None else min(row[f"max.{column}"], upto)
            if after < end and row[f"min.{column}"] <= end:
                sizes[end] = sizes.get(end, 0) + row["num_records"]
        start = previous = after
        total = 0
        for end in sorted(sizes):
            if total and total + sizes[end] > max_records:
                yield Span(column, start, previous, total)
                start, total = previous, 0
            previous, total = end, total + sizes[end]
        if total:
            yield Span(column, start, previous, total)

    def _files(self) -> pa.Table:
        return pa.table(self.table.get_add_actions(flatten=True))


@dataclass(frozen=True)
class Commit:
    """Rows, and the marks that become true with them.

    `span` is where the rows will be found in the table, which an engine needs to be told that is to write them.
    """

    rows: "DataFrame | pa.Table"
    marks: Mapping[str, int]
    span: Span | None = None


@dataclass(frozen=True)
class Increment:
    """What an asset adds to its Delta table: given the table, the commits to make, one after the other.

    The commits are asked for while the table's lease is held, so that the marks they start from stay true. In mode
    `overwrite` each commit's rows are the whole table.
    """

    table: TableDefinition
    commits: Callable[[Snapshot], Iterable[Commit]]
    mode: Literal["append", "overwrite"] = "append"


class DeltaIOManager(dg.ConfigurableIOManager):
    """Delta tables under `root`, each at the path of its asset key: `<root>/<layer>/<table>`.

    Writing takes an `Increment`, holds the table's lease, and commits rows and marks in one version. Results are
    written by this process, except large ones of a distributed engine, which writes them itself: more records than
    `max_collected_records`. Reading gives a `Snapshot`. Tables are created here, from their definition, never by an
    engine. A folder that cannot be read as that table is refused and left as it is.
    """

    root: str
    spark: dg.ResourceDependency[SparkResource]
    max_collected_records: int = 100_000
    lease_patience_seconds: float = 3600

    def path(self, key: dg.AssetKey) -> Path:
        """Where the table of an asset lies."""
        return Path(self.root, *key.path)

    def snapshot(self, key: dg.AssetKey) -> Snapshot | None:
        """The table of an asset as it is now, or None where it does not exist yet.

        Raises:
            TableError: there is a folder that cannot be read as a Delta table.
        """
        path = self.path(key)
        table = _open(path)
        return None if table is None else Snapshot(path, table, self.spark)

    def load_input(self, context: dg.InputContext) -> Snapshot:
        """The upstream table.

        Raises:
            TableError: it does not exist yet, or cannot be read.
        """
        found = self.snapshot(context.asset_key)
        if found is None:
            raise TableError(
                f"There is no table at {self.path(context.asset_key)} yet: materialize {_name(context)} first."
            )
        return found

    def handle_output(self, context: dg.OutputContext, obj: Increment) -> None:
        """Commit what the increment adds, and tell Dagster what that was.

        Raises:
            TableError: the table is not as its definition says, or another writer has broken the lease.
            LeaseTimeout: another run kept the table for longer than `lease_patience_seconds`.
        """
        path = self.path(context.asset_key)
        holder = f"Dagster run {context.run_id}"
        with lease(path, holder, self.lease_patience_seconds, context.log.info) as waited:
            snapshot = Snapshot(path, _open_or_create(path, context.asset_key, obj.table), self.spark)
            seconds = {"waiting for the lease": waited, "reading": 0.0, "computing": 0.0, "committing": 0.0}
            before: dict[str, int | None] = {}
            after: dict[str, int] = {}
            shown, written, offsets = obj.table.schema.empty_table(), 0, OffsetRanges()
            for commit in _timed(obj.commits(snapshot), seconds, "reading"):
                before |= {name: snapshot.mark(name) for name in commit.marks if name not in before}
                rows_before = snapshot.count()
                head = self._write(snapshot, obj, commit, offsets, seconds)
                after |= commit.marks
                shown = head if head.num_rows else shown
                written += snapshot.count() - (rows_before if obj.mode == "append" else 0)
                context.log.info(f"{_name(context)}: {written} rows written, version {snapshot.table.version()}")
            context.add_output_metadata(
                {
                    "rows written": written,
                    "dagster/row_count": snapshot.count(),
                    "table version": snapshot.table.version(),
                    "dagster/uri": str(path),
                    "dagster/column_schema": column_schema(obj.table.schema),
                    "offsets": offsets.by_partition(),
                    "marks": {name: {"from": before[name], "to": mark} for name, mark in after.items()},
                    "preview": preview(shown),
                    "seconds": {phase: round(spent, 3) for phase, spent in seconds.items()},
                }
            )

    def _write(
        self,
        snapshot: Snapshot,
        increment: Increment,
        commit: Commit,
        offsets: OffsetRanges,
        seconds: dict[str, float],
    ) -> pa.Table:
        """Make one commit, and return the first of its rows."""
        schema = increment.table.schema
        if not isinstance(commit.rows, pa.Table) and self._engine_writes(commit.span):
            with _timing(seconds, "committing"):
                self._append_by_engine(snapshot, increment.table, commit.rows, commit.marks)
            added = snapshot.rows(commit.span)
            offsets.add(added.groupBy("partition").agg({"offset": "min"}).toDF("partition", "offset").toArrow())
            offsets.add(added.groupBy("partition").agg({"offset": "max"}).toDF("partition", "offset").toArrow())
            return _conform(added.limit(PREVIEW_ROWS).toArrow(), schema)
        with _timing(seconds, "computing"), self._explained():
            rows = _conform(commit.rows if isinstance(commit.rows, pa.Table) else commit.rows.toArrow(), schema)
        with _timing(seconds, "committing"):
            self._commit(snapshot, increment, rows, commit.marks)
        offsets.add(rows)
        # A copy, since a slice would keep all of the rows in memory.
        return rows.take(pa.array(range(min(rows.num_rows, PREVIEW_ROWS)), pa.int64()))

    def _commit(self, snapshot: Snapshot, increment: Increment, rows: pa.Table, marks: Mapping[str, int]) -> None:
        properties = CommitProperties(app_transactions=[Transaction(name, mark) for name, mark in marks.items()])
        try:
            if rows.num_rows or increment.mode == "overwrite":
                write_deltalake(
                    snapshot.table,
                    rows,
                    mode=increment.mode,
                    writer_properties=_writer_properties(increment.table, rows.num_rows),
                    commit_properties=properties,
                )
            else:
                snapshot.table.create_write_transaction(
                    [], "append", increment.table.schema, commit_properties=properties
                )
                snapshot.table.update_incremental()
        except CommitFailedError as error:
            reason = str(error).splitlines()[0]
            raise TableError(f"Another writer committed to {snapshot.path} despite our lease: {reason}") from None
        except (DeltaError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise TableError(f"Cannot write {snapshot.path} (LAKEHOUSE_ROOT): {reason}") from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of an engine's error that it is about a file of ours that is gone, if it is; each engine says it anew."""
        try:
            yield
        except Exception as error:
            named = re.search(rf"{re.escape(self.root.strip('/'))}[^\s'\"`]*?\.parquet", unquote(str(error)))
            file = Path("/", named.group()) if named else None
            if file is None or file.exists():
                raise
            raise TableError(f"{file} is missing, though its table has it. {RESTORE}") from None

    def _engine_writes(self, span: Span | None) -> bool:
        return self.spark.distributed and span is not None and span.records > self.max_collected_records

    def _append_by_engine(
        self, snapshot: Snapshot, table: TableDefinition, rows: "DataFrame", marks: Mapping[str, int]
    ) -> None:
        ((name, mark),) = marks.items()  # the engine's writer takes one
        writer = rows.select(*table.schema.names).write.format("delta").mode("append")
        writer = writer.option("txnAppId", name).option("txnVersion", mark)
        for column in table.bloom_filters:
            writer = writer.option(f"parquet.bloom.filter.enabled#{column}", "true")
            writer = writer.option(f"parquet.bloom.filter.fpp#{column}", str(BLOOM_FILTER_FALSE_POSITIVES))
        writer.save(str(snapshot.path))
        snapshot.table.update_incremental()
        if snapshot.mark(name) != mark:
            raise TableError(
                f"The engine wrote {snapshot.path} without its mark {name}={mark}; it has {snapshot.mark(name)}"
            )


@contextmanager
def _timing(seconds: dict[str, float], phase: str) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] += time.monotonic() - begun


def _timed(commits: Iterable[Commit], seconds: dict[str, float], phase: str) -> Iterator[Commit]:
    """The commits, with the time that it takes to get each added to a phase."""
    remaining = iter(commits)
    while True:
        with _timing(seconds, phase):
            commit = next(remaining, None)
        if commit is None:
            return
        yield commit


def _open(path: Path) -> DeltaTable | None:
    if not DeltaTable.is_deltatable(str(path)):
        foreign = next((file for file in path.rglob("*") if file.is_file() and not _is_leftover(file)), None)
        if foreign is None:
            return None
        raise TableError(
            f"{path} is no Delta table but holds {foreign}. Move it away, or choose another LAKEHOUSE_ROOT."
        )
    try:
        table = DeltaTable(str(path))
    except (DeltaError, OSError, ValueError) as error:
        reason = _damage(path) or str(error).splitlines()[0]
    else:
        newest = path / "_delta_log" / f"{table.version():020}.json"
        # Readers take an empty entry for a version without changes; with it, a commit and its marks are gone.
        if not newest.exists() or newest.stat().st_size:
            return table
        reason = f"{newest} is empty"
    raise TableError(f"The Delta table at {path} cannot be read, and is left as it is: {reason}. {RESTORE}") from None


def _damage(path: Path) -> str | None:
    """The first entry of a table's log that is not whole, or not there although a later one is."""
    expected: int | None = None
    for entry in sorted((path / "_delta_log").glob("[0-9]*[0-9].json")):
        if expected not in (None, int(entry.stem)):
            return f"{entry.with_stem(f'{expected:020}')} is missing"
        expected = int(entry.stem) + 1
        try:
            for line in entry.read_bytes().splitlines():
                msgspec.json.decode(line)
        except (msgspec.DecodeError, OSError) as error:
            return f"{entry} is damaged ({error})"
    return None


def _is_leftover(file: Path) -> bool:
    """Whether a file is what a writer leaves that died while it created the table.

    deltalake writes a commit as `_commit_<id>.json.tmp`, its object store writes any file as `<name>#<number>`, before
    either is given its name.
    """
    return file.parent.name == "_delta_log" and re.match(r"_commit_|\d{20}\.json#\d+$", file.name) is not None


def _open_or_create(path: Path, key: dg.AssetKey, definition: TableDefinition) -> DeltaTable:
    table = _open(path)
    if table is None:
        try:
            return DeltaTable.create(
                str(path), definition.schema, partition_by=definition.partition_by, name=".".join(key.path)
            )
        except (DeltaError, OSError) as error:
            raise TableError(f"Cannot create {path} (LAKEHOUSE_ROOT): {str(error).splitlines()[0]}") from None
    has = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    wants = {field.name: field.type for field in definition.schema}
    if has != wants:
        differing = sorted(name for name in has.keys() | wants.keys() if has.get(name) != wants.get(name))
        raise TableError(
            f"The table at {path} has other columns than {'.'.join(key.path)} ({', '.join(differing)}), so it is not "
            "written. Move it away; the next run builds it anew."
        )
    return table


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with exactly the columns, types and order of `schema`; engines differ in widths and time zones."""
    return rows.select(schema.names).cast(schema)


def _writer_properties(table: TableDefinition, records: int) -> WriterProperties:
    bloom = BloomFilterProperties(True, BLOOM_FILTER_FALSE_POSITIVES, max(records, 1))
    return WriterProperties(
        compression="ZSTD",
        column_properties={
            column: ColumnProperties(bloom_filter_properties=bloom, dictionary_enabled=False)
            for column in table.bloom_filters
        },
    )


def _name(context: dg.InputContext | dg.OutputContext) -> str:
    return context.asset_key.to_user_string()
