"""Gold, by day: sums that new events only ever add to, so that their cost is that of the new events."""

import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.rejected import silver_rejected_events
from assets.silver import BRONZE_BATCH, silver_vehicles_events
from resources.delta import Commit, Increment, Snapshot, TableDefinition
from resources.table_metadata import column_schema, described

# Sums of doubles depend on their order, and would drift from a recomputation; sums of decimals do not.
BATTERY = "decimal(15,12)"
BATTERY_SUM = "decimal(38,12)"

TABLE = TableDefinition(
    schema=pa.schema(
        [
            described("event_date", pa.date32(), "UTC date of the events."),
            described("type", pa.string(), "car, bike, scoot or other."),
            described("total", pa.int64(), "Events."),
            described("battery_count", pa.int64(), "Events that have a battery."),
            described("battery_sum", pa.decimal128(38, 12), "Sum of their percents, each to twelve decimals."),
            described("max_lat", pa.float64(), "Northernmost latitude, degrees."),
        ]
    )
)
GRAIN = ["event_date", "type"]


def summarize(events: DataFrame) -> DataFrame:
    """Silver events, summed per day and type."""
    return events.groupBy(*GRAIN).agg(
        F.count("*").alias("total"),
        F.count("battery").alias("battery_count"),
        F.coalesce(F.sum(F.col("battery").cast(BATTERY)), F.lit(0)).cast(BATTERY_SUM).alias("battery_sum"),
        F.max("lat").alias("max_lat"),
    )


def combine(one: DataFrame, other: DataFrame) -> DataFrame:
    """Two such sums over different events, as one over all of them, in the order of the grain."""
    return (
        one.unionByName(other)
        .groupBy(*GRAIN)
        .agg(
            F.sum("total").alias("total"),
            F.sum("battery_count").alias("battery_count"),
            F.sum("battery_sum").cast(BATTERY_SUM).alias("battery_sum"),
            F.max("max_lat").alias("max_lat"),
        )
        .orderBy(*GRAIN)
    )


@dg.asset(
    key=["gold", "daily_stats"],
    ins={"silver": dg.AssetIn(silver_vehicles_events.key)},
    deps=[silver_rejected_events],  # whose blocking check keeps Gold from counting what is not accounted for
    group_name="gold",
    kinds={"pyspark", "delta"},
    owners=["team:platform"],
    io_manager_key="delta",
    metadata={"dagster/column_schema": column_schema(TABLE.schema)},
)
def gold_daily_stats(silver: Snapshot) -> Increment:
    """What `stats` is made of, per day. Late and out-of-order events are added to the day they belong to.

    Grain: one row per UTC day and vehicle type that has events.
    """
    judged = silver.mark(BRONZE_BATCH) or 0
    return Increment(
        TABLE,
        lambda daily: (
            Commit(combine(daily.rows(), summarize(silver.rows(span))), {BRONZE_BATCH: span.upto})
            for span in silver.spans("batch", daily.mark(BRONZE_BATCH) or 0, max_records=2**63, upto=judged)
        ),
        mode="overwrite",
    )
