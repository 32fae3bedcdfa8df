"""Gold: the statistics per vehicle type."""

import dagster as dg
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.audit import AuditConfig
from assets.bronze import BATCH
from assets.daily_stats import gold_daily_stats, summarize
from assets.silver import BRONZE_BATCH, silver_vehicles_events
from resources.delta import Snapshot, Span
from resources.table_metadata import column_schema, described

SCHEMA = pa.schema(
    [
        described("type", pa.string(), "car, bike, scoot or other."),
        described("total", pa.int64(), "Events."),
        described("avg_battery", pa.float64(), "Mean percent over the events that have a battery; null if none has."),
        described("max_lat", pa.float64(), "Northernmost latitude, degrees."),
    ]
)
# Up to this many events each run recomputes Gold from all of Silver; beyond, the audit job does.
RECOMPUTED_EVENTS = 1_000_000


def total_up(daily: DataFrame) -> DataFrame:
    """Daily sums as statistics per type, in the order of the type."""
    count = F.sum("battery_count")
    return (
        daily.groupBy("type")
        .agg(
            F.sum("total").alias("total"),
            F.when(count > 0, F.sum("battery_sum").cast("double") / count).alias("avg_battery"),
            F.max("max_lat").alias("max_lat"),
        )
        .orderBy("type")
    )


@dg.asset(
    key=["gold", "stats"],
    ins={"daily": dg.AssetIn(gold_daily_stats.key)},
    group_name="gold",
    kinds={"pyspark", "parquet"},
    owners=["team:platform"],
    io_manager_key="parquet",
    metadata={"dagster/column_schema": column_schema(SCHEMA)},
)
def gold_stats(daily: Snapshot) -> DataFrame:
    """How many events each type of vehicle sent, how full it was, how far north it came.

    Grain: one row per vehicle type that has events.
    """
    return total_up(daily.rows())


@dg.asset_check(
    asset=gold_stats,
    additional_ins={"daily": dg.AssetIn(gold_daily_stats.key), "silver": dg.AssetIn(silver_vehicles_events.key)},
    blocking=True,
)
def equals_recomputation(
    config: AuditConfig, stats: pa.Table, daily: Snapshot, silver: Snapshot
) -> dg.AssetCheckResult:
    """Gold is what Silver says: recomputed from all of it or, if that is much, from daily sums and Silver's count."""
    judged = Span(BATCH, 0, daily.mark(BRONZE_BATCH) or 0, silver.count())
    in_full = config.everything or silver.count() <= RECOMPUTED_EVENTS
    expected = total_up(summarize(silver.rows(judged)) if in_full else daily.rows()).toArrow().to_pylist()
    actual = stats.to_pylist()
    counted = sum(row["total"] for row in actual)
    complete = counted == silver.count() or silver.mark(BRONZE_BATCH) != daily.mark(BRONZE_BATCH)
    return dg.AssetCheckResult(
        passed=actual == expected and complete,
        description=None if actual == expected else f"Gold has {actual}, recomputed it is {expected}",
        metadata={"recomputed from": "silver" if in_full else "daily_stats", "events": counted},
    )
