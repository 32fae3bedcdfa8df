"""The code location: which assets, jobs, sensors and resources there are, and the environment they run in."""

import os
from pathlib import Path

import dagster as dg

from assets.bronze import bronze_vehicles_events
from assets.daily_stats import gold_daily_stats
from assets.ingestion import vehicles_topic
from assets.rejected import every_record_is_accounted_for, silver_rejected_events
from assets.silver import event_id_is_unique, silver_vehicles_events, values_are_in_range
from assets.stats import equals_recomputation, gold_stats
from lakehouse_dagster.jobs import audit, lakehouse, refresh
from lakehouse_dagster.sensors import new_vehicle_events
from resources.delta import DeltaIOManager
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource

HOME = Path(".lakehouse").absolute()
ROOT = str(Path(os.environ.get("LAKEHOUSE_ROOT") or HOME / "data").absolute())

spark = SparkResource(remote=os.environ.get("SPARK_REMOTE") or None, home=str(HOME / "spark"))
kafka = KafkaResource(
    bootstrap_servers=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
    topic=os.environ.get("KAFKA_TOPIC") or "vehicles-events",
    properties_file=os.environ.get("KAFKA_PROPERTIES_FILE") or None,
    group="lakehouse-bronze",
    broker_home=str(HOME / "kafka"),
)
parquet = ParquetIOManager(root=ROOT)

defs = dg.Definitions(
    assets=[
        vehicles_topic,
        bronze_vehicles_events,
        silver_vehicles_events,
        silver_rejected_events,
        gold_daily_stats,
        gold_stats,
    ],
    asset_checks=[event_id_is_unique, values_are_in_range, every_record_is_accounted_for, equals_recomputation],
    jobs=[lakehouse, refresh, audit],
    sensors=[new_vehicle_events],
    resources={
        "kafka": kafka,
        "delta": DeltaIOManager(root=ROOT, spark=spark),
        "parquet": parquet,
    },
    executor=dg.in_process_executor,
)
