"""Silver: the valid events, each once."""

import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from assets.audit import AuditConfig, checked_spans, passes_without
from assets.bronze import BATCH, bronze_vehicles_events
from assets.verdict import EVENTS, parse
from resources.delta import Commit, Increment, Snapshot, TableDefinition
from resources.table_metadata import column_schema, described

TABLE = TableDefinition(
    schema=pa.schema(
        [
            described("event_id", pa.string(), "Identity of the event: a UUID in lower case."),
            described("vehicle_id", pa.string(), "Identity of the vehicle."),
            described("type", pa.string(), "car, bike, scoot or other."),
            described("battery", pa.float64(), "Percent of charge or fuel, 0 to 100; null where there is none."),
            described("lat", pa.float64(), "Degrees north, WGS 84."),
            described("lon", pa.float64(), "Degrees east, WGS 84."),
            described("event_time", pa.timestamp("us", "UTC"), "When the vehicle reported it."),
            described("event_date", pa.date32(), "UTC date of event_time."),
            described("batch", pa.int64(), "Bronze's batch."),
            described("topic", pa.string(), "Kafka topic."),
            described("partition", pa.int32(), "Kafka partition."),
            described("offset", pa.int64(), "Offset in the partition."),
            described("ingested_at", pa.timestamp("us", "UTC"), "When Bronze took it from Kafka."),
        ]
    ),
    partition_by="event_date",
    bloom_filters=("event_id",),
)
# Silver's mark and rejected's: up to which Bronze batch they have judged.
BRONZE_BATCH = "bronze/batch"
SLICE_RECORDS = 250_000
LOOKUP_RECORDS = 1_000


def accept(records: DataFrame, silver: DataFrame, at_most: int) -> DataFrame:
    """The Silver rows of at most so many Bronze records: those that are valid, and the first with their event_id.

    The first is by (batch, partition, offset), among the records and before all of them those that Silver has.
    """
    events = valid_events(records)
    known = sharing_ids(silver, events, at_most).select("event_id")
    return first_of_each(events).join(known, "event_id", "left_anti")


def sharing_ids(silver: DataFrame, events: DataFrame, at_most: int) -> DataFrame:
    """The Silver rows to compare with `events`, of which there are at most so many, by event_id.

    A few ids are looked up by value, which the Parquet bloom filters answer without reading Silver's history; for
    many, all of Silver is the cheaper answer. Times and days cannot narrow it: an id may come again with others.
    """
    if at_most > LOOKUP_RECORDS:
        return silver
    ids = events.select("event_id").distinct().toArrow()["event_id"].to_pylist()
    return silver.where(F.col("event_id").isin(ids))


def valid_events(records: DataFrame) -> DataFrame:
    """The events of Bronze records that are valid, one row per record, with Silver's columns."""
    needed = records.select("batch", "topic", "partition", "offset", "timestamp", "value", "ingested_at")
    return needed.mapInArrow(parse, EVENTS)


def first_of_each(events: DataFrame) -> DataFrame:
    """Of the events with the same event_id, the one with the lowest (batch, partition, offset)."""
    order = Window.partitionBy("event_id").orderBy("batch", "partition", "offset")
    return events.withColumn("rank", F.row_number().over(order)).where("rank = 1").drop("rank")


@dg.asset(
    key=["silver", "vehicles_events"],
    ins={"bronze": dg.AssetIn(bronze_vehicles_events.key)},
    group_name="silver",
    kinds={"pyspark", "delta"},
    owners=["team:platform"],
    io_manager_key="delta",
    metadata={"dagster/column_schema": column_schema(TABLE.schema)},
)
def silver_vehicles_events(bronze: Snapshot) -> Increment:
    """Every valid event once; of several records with the same event_id the first wins.

    Grain: one row per distinct event_id.
    """
    return Increment(
        TABLE,
        lambda silver: (
            Commit(accept(bronze.rows(span), silver.rows(), span.records), {BRONZE_BATCH: span.upto}, span)
            for span in bronze.spans(BATCH, after=silver.mark(BRONZE_BATCH) or 0, max_records=SLICE_RECORDS)
        ),
    )


VALID = (
    "event_id IS NOT NULL AND vehicle_id <> '' AND type IN ('car', 'bike', 'scoot', 'other') "
    "AND (battery IS NULL OR battery BETWEEN 0 AND 100) AND lat BETWEEN -90 AND 90 AND lon BETWEEN -180 AND 180 "
    "AND event_date = CAST(event_time AS DATE)"
)


def repeated(events: DataFrame, silver: DataFrame, at_most: int) -> DataFrame:
    """Those event ids of `events`, of which there are at most so many, that `silver` has more than once."""
    ids = events.select("event_id").distinct()
    everywhere = sharing_ids(silver, ids, at_most).select("event_id").join(ids, "event_id", "left_semi")
    return everywhere.groupBy("event_id").count().where("count > 1")


def invalid(events: DataFrame) -> DataFrame:
    """The rows that break the event's contract."""
    return events.where(f"({VALID}) IS NOT TRUE")


@dg.asset_check(asset=silver_vehicles_events, blocking=True)
def event_id_is_unique(
    context: dg.AssetCheckExecutionContext, config: AuditConfig, silver: Snapshot
) -> dg.AssetCheckResult:
    """No event_id that the run added stands in Silver twice."""
    spans = checked_spans(context.instance, silver_vehicles_events.key, config, silver, BRONZE_BATCH)
    return passes_without(repeated(silver.rows(span), silver.rows(), span.records) for span in spans)


@dg.asset_check(asset=silver_vehicles_events, blocking=True)
def values_are_in_range(
    context: dg.AssetCheckExecutionContext, config: AuditConfig, silver: Snapshot
) -> dg.AssetCheckResult:
    """Every row that the run added keeps the event's contract."""
    spans = checked_spans(context.instance, silver_vehicles_events.key, config, silver, BRONZE_BATCH)
    return passes_without(invalid(silver.rows(span)) for span in spans)
