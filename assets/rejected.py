"""Rejected: what Bronze has and Silver has not, with the reason."""

import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.audit import AuditConfig, checked_spans, passes_without
from assets.bronze import BATCH, bronze_vehicles_events
from assets.silver import BRONZE_BATCH, SLICE_RECORDS, sharing_ids, silver_vehicles_events
from assets.verdict import REJECTIONS, explain
from resources.delta import Commit, Increment, Snapshot, TableDefinition
from resources.table_metadata import column_schema, described

TABLE = TableDefinition(
    schema=pa.schema(
        [
            described("batch", pa.int64(), "Bronze's batch."),
            described("topic", pa.string(), "Kafka topic."),
            described("partition", pa.int32(), "Kafka partition."),
            described("offset", pa.int64(), "Offset in the partition."),
            described("timestamp", pa.timestamp("us", "UTC"), "Kafka's timestamp."),
            described("key", pa.binary(), "Key, byte for byte."),
            described("value", pa.binary(), "Value, byte for byte."),
            described(
                "reason",
                pa.string(),
                "tombstone, not_json, missing_field, wrong_type, out_of_range, future or duplicate.",
            ),
            described("detail", pa.string(), "What exactly was wrong, and where."),
            described("ingested_at", pa.timestamp("us", "UTC"), "When Bronze took it from Kafka."),
            described("ingest_date", pa.date32(), "UTC date of ingested_at."),
        ]
    ),
    partition_by="ingest_date",
)
# Within a batch, which is of one topic, a record is found by partition and offset.
POSITION = ["batch", "partition", "offset"]


def reject(records: DataFrame, accepted: DataFrame, silver: DataFrame, at_most: int) -> DataFrame:
    """The rejected rows of at most so many Bronze records: those whose position is not among the `accepted` ones.

    `accepted` are Silver's rows of the same batches. A valid record that is not among them is a duplicate; where its
    event is in `silver` goes into the detail.
    """
    left = records.join(accepted.select(*POSITION), POSITION, "left_anti")
    explained = left.drop("timestamp_type", "headers").mapInArrow(explain, REJECTIONS)
    duplicates = explained.where("event_id IS NOT NULL").select("event_id")
    winner = F.format_string(
        "event_id is in Silver, from partition %d offset %d of batch %d", "partition", "offset", "batch"
    )
    first = sharing_ids(silver, duplicates, at_most).join(duplicates, "event_id", "left_semi")
    winners = first.select("event_id", winner.alias("winner"))
    detailed = explained.join(winners, "event_id", "left").withColumn("detail", F.coalesce("detail", "winner"))
    return detailed.select(*TABLE.schema.names)


@dg.asset(
    key=["silver", "rejected_events"],
    ins={"bronze": dg.AssetIn(bronze_vehicles_events.key), "silver": dg.AssetIn(silver_vehicles_events.key)},
    group_name="silver",
    kinds={"pyspark", "delta"},
    owners=["team:platform"],
    io_manager_key="delta",
    metadata={"dagster/column_schema": column_schema(TABLE.schema)},
)
def silver_rejected_events(bronze: Snapshot, silver: Snapshot) -> Increment:
    """Every record that did not make it into Silver, as it landed, with one reason and a detail to act on.

    Grain: one row per Kafka record that is not in Silver.
    """
    judged = silver.mark(BRONZE_BATCH) or 0
    return Increment(
        TABLE,
        lambda rejected: (
            Commit(
                reject(bronze.rows(span), silver.rows(span), silver.rows(), span.records),
                {BRONZE_BATCH: span.upto},
                span,
            )
            for span in bronze.spans(BATCH, rejected.mark(BRONZE_BATCH) or 0, SLICE_RECORDS, upto=judged)
        ),
    )


def unaccounted(records: DataFrame, silver: DataFrame, rejected: DataFrame) -> DataFrame:
    """The positions that are not once in `records` and once in one of the others, with how often they are."""
    landed = records.select(*POSITION, F.lit(1).alias("in_bronze"), F.lit(0).alias("in_others"))
    judged = silver.select(*POSITION).unionByName(rejected.select(*POSITION))
    both = landed.unionByName(judged.select(*POSITION, F.lit(0).alias("in_bronze"), F.lit(1).alias("in_others")))
    counted = both.groupBy(*POSITION).agg(F.sum("in_bronze").alias("in_bronze"), F.sum("in_others").alias("in_others"))
    return counted.where("in_bronze <> 1 OR in_others <> 1")


@dg.asset_check(
    asset=silver_rejected_events,
    additional_ins={"bronze": dg.AssetIn(bronze_vehicles_events.key), "silver": dg.AssetIn(silver_vehicles_events.key)},
    blocking=True,
)
def every_record_is_accounted_for(
    context: dg.AssetCheckExecutionContext,
    config: AuditConfig,
    rejected: Snapshot,
    bronze: Snapshot,
    silver: Snapshot,
) -> dg.AssetCheckResult:
    """Bronze = Silver + rejected: by position for what the run added, by count for everything."""
    if bronze.mark(BATCH) == rejected.mark(BRONZE_BATCH) and bronze.count() != silver.count() + rejected.count():
        counts = f"Bronze {bronze.count()}, Silver {silver.count()}, rejected {rejected.count()}"
        return dg.AssetCheckResult(passed=False, description=f"the rows do not add up: {counts}")
    spans = checked_spans(context.instance, silver_rejected_events.key, config, bronze, BRONZE_BATCH)
    return passes_without(unaccounted(bronze.rows(span), silver.rows(span), rejected.rows(span)) for span in spans)
