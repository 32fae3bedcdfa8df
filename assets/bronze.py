"""Bronze: every record of the topic, as it landed."""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dagster as dg
import pyarrow as pa

from assets.ingestion import vehicles_topic
from resources.delta import Commit, Increment, Snapshot, TableDefinition
from resources.kafka import HEADERS, KafkaResource, TopicState
from resources.table_metadata import column_schema, described

TABLE = TableDefinition(
    schema=pa.schema(
        [
            described("batch", pa.int64(), "Number of the commit that brought the record; counts up from 1."),
            described("topic", pa.string(), "Kafka topic."),
            described("partition", pa.int32(), "Kafka partition."),
            described("offset", pa.int64(), "Offset in the partition."),
            described("timestamp", pa.timestamp("us", "UTC"), "Kafka's timestamp; null where the record has none."),
            described("timestamp_type", pa.string(), "CreateTime, LogAppendTime, or null."),
            described("key", pa.binary(), "Key, byte for byte."),
            described("value", pa.binary(), "Value, byte for byte; null is a tombstone."),
            described("headers", HEADERS, "Headers, in order; null where there are none."),
            described("ingested_at", pa.timestamp("us", "UTC"), "When this commit's records were taken from Kafka."),
            described("ingest_date", pa.date32(), "UTC date of ingested_at."),
        ]
    ),
    partition_by="ingest_date",
)
BATCH = "batch"


class DataLoss(Exception):
    """Records that Bronze does not have are gone from the topic; the message names partitions and offsets."""


@dataclass(frozen=True)
class Backlog:
    """What the topic has and Bronze has not: per partition where to start and where to end (exclusive).

    `lost` are the offsets (from, to) per partition that lie between what Bronze has and what the topic still has.
    """

    start: Mapping[int, int]
    end: Mapping[int, int]
    lost: Mapping[int, tuple[int, int]]
    recreated: bool

    @property
    def records(self) -> int:
        """How many offsets there are to read; transaction markers and compaction leave some without a record."""
        return sum(max(end - self.start[partition], 0) for partition, end in self.end.items())


class Marks:
    """The names of Bronze's marks for one topic, by its id: a topic made anew begins again at offset 0."""

    def __init__(self, topic: str, topic_id: str) -> None:
        """`topic_id` is the broker's, as `kafka-topics.sh --describe` prints it."""
        self.topic = f"kafka/{topic}"
        self._prefix = f"kafka/{topic}/{topic_id}"

    def next_offset(self, partition: int) -> str:
        """Up to which offset (exclusive) Bronze has the partition."""
        return f"{self._prefix}/{partition}"

    def lost(self, partition: int) -> str:
        """How many offsets of the partition were given up, all in all."""
        return f"{self._prefix}/{partition}/lost"


def backlog(topic: str, state: TopicState, bronze: Snapshot | None) -> Backlog:
    """Compare the topic with Bronze's marks."""
    marks = Marks(topic, state.topic_id)
    known = None if bronze is None else bronze.mark(marks.topic)
    recreated = known is not None and known != fingerprint(state.topic_id)
    start, lost = {}, {}
    for partition, (low, high) in state.watermarks.items():
        mark = bronze.mark(marks.next_offset(partition)) if bronze is not None else None
        # A partition that was added later is owed to us from its beginning; before the first read nothing is.
        expected = mark if mark is not None else low if known is None else 0
        start[partition] = min(max(expected, low), high)
        if not low <= expected <= high:
            lost[partition] = (min(expected, high), max(expected, low))
    return Backlog(start, {partition: high for partition, (_, high) in state.watermarks.items()}, lost, recreated)


def fingerprint(topic_id: str) -> int:
    """A topic id as a mark's version, which is a signed 64-bit number."""
    return uuid.uuid5(uuid.NAMESPACE_OID, topic_id).int >> 65


def refuse_loss(topic: str, found: Backlog) -> None:
    """Say what is missing, and how to go on all the same.

    Raises:
        DataLoss: something is.
    """
    gone = ["it was deleted and made anew, with what Bronze had not read of the old one"] if found.recreated else []
    for partition, (start, end) in found.lost.items():
        if start < found.end[partition]:
            gone.append(f"partition {partition} has lost offsets {start} to {end - 1}, which Bronze never got")
        else:
            gone.append(f"partition {partition} ends before offset {start}, though Bronze has it up to {end - 1}")
    if gone:
        raise DataLoss(
            f"Topic {topic!r} is not what Bronze has read: {'; '.join(gone)}. To accept that and go on, run once with "
            "the config {ops: {bronze__vehicles_events: {config: {accept_loss: true}}}}; the gap is then recorded in "
            "Bronze's marks."
        )


def land(kafka: KafkaResource, bronze: Snapshot, accept_loss: bool) -> Iterator[Commit]:
    """Yield a commit of Bronze rows for each slice of the topic, from its marks to the watermarks of now.

    Raises:
        DataLoss: retention or recreation took records that Bronze has not, and that is not accepted.
        KafkaUnavailable: the broker or the topic cannot be used.
    """
    state = kafka.state()
    found = backlog(kafka.topic, state, bronze)
    marks = Marks(kafka.topic, state.topic_id)
    # Every partition gets its mark at the first read, so that one without new records is not taken for an added one.
    begun = {marks.next_offset(p): start for p, start in found.start.items() if p not in found.lost}
    standing = {marks.topic: fingerprint(state.topic_id), **begun}
    if not accept_loss:
        refuse_loss(kafka.topic, found)
    elif found.lost or found.recreated:
        yield Commit(TABLE.schema.empty_table(), standing | _gap_marks(marks, found, bronze))
    batch = bronze.mark(BATCH) or 0
    for taken in kafka.read(found.start, found.end):
        positions = {marks.next_offset(partition): offset for partition, offset in taken.positions.items()}
        batch += 1 if taken.records.num_rows else 0
        yield Commit(_bronze_rows(taken.records, batch), {BATCH: batch, **standing, **positions})


def _gap_marks(marks: Marks, found: Backlog, bronze: Snapshot) -> dict[str, int]:
    gaps = {}
    for partition, (start, end) in found.lost.items():
        gaps[marks.lost(partition)] = (bronze.mark(marks.lost(partition)) or 0) + end - start
        gaps[marks.next_offset(partition)] = found.start[partition]
    return gaps


def _bronze_rows(records: pa.Table, batch: int) -> pa.Table:
    now = dt.datetime.now(dt.UTC)
    rows = records.num_rows
    columns = {
        BATCH: pa.repeat(pa.scalar(batch, pa.int64()), rows),
        "ingested_at": pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), rows),
        "ingest_date": pa.repeat(pa.scalar(now.date(), pa.date32()), rows),
    }
    return pa.table([columns[n] if n in columns else records[n] for n in TABLE.schema.names], TABLE.schema)


class BronzeConfig(dg.Config):
    """`accept_loss`: go on past records that are gone from the topic, and record the gap. For one run, by hand."""

    accept_loss: bool = False


@dg.asset(
    key=["bronze", "vehicles_events"],
    deps=[vehicles_topic],
    group_name="bronze",
    kinds={"kafka", "delta"},
    owners=["team:platform"],
    io_manager_key="delta",
    metadata={"dagster/column_schema": column_schema(TABLE.schema)},
)
def bronze_vehicles_events(config: BronzeConfig, kafka: KafkaResource) -> Increment:
    """Every record of the topic, byte for byte, whatever its bytes.

    Grain: one row per Kafka record, at (topic, partition, offset) of a batch.
    """
    return Increment(TABLE, lambda bronze: land(kafka, bronze, config.accept_loss))
