"""Which assets are materialized together."""

import dagster as dg

from assets.audit import AuditConfig
from assets.ingestion import vehicles_topic

lakehouse = dg.define_asset_job("lakehouse", dg.AssetSelection.all(), description="Send events, then every table.")
refresh = dg.define_asset_job(
    "refresh",
    dg.AssetSelection.all() - dg.AssetSelection.assets(vehicles_topic),
    description="Take what is new in Kafka through every table, Bronze to Gold.",
)
audit = dg.define_asset_job(
    "audit",
    dg.AssetSelection.all_asset_checks(),
    description="Run every asset check over the whole history instead of the last run's records.",
    config=dg.RunConfig(
        ops={
            "silver__vehicles_events_event_id_is_unique": AuditConfig(everything=True),
            "silver__vehicles_events_values_are_in_range": AuditConfig(everything=True),
            "silver__rejected_events_every_record_is_accounted_for": AuditConfig(everything=True),
            "gold__stats_equals_recomputation": AuditConfig(everything=True),
        }
    ),
)
