"""How much of the tables an asset check looks at: what the last materialization added, or everything."""

from collections.abc import Iterable
from typing import Any

import dagster as dg
from pyspark.sql import DataFrame

from assets.bronze import BATCH
from resources.delta import Snapshot, Span

EXAMPLES = 5
SLICE_RECORDS = 250_000


class AuditConfig(dg.Config):
    """`everything`: check the whole history, not just the records of the last materialization."""

    everything: bool = False


def checked_spans(
    instance: dg.DagsterInstance, key: dg.AssetKey, config: AuditConfig, table: Snapshot, mark: str
) -> Iterable[Span]:
    """The spans of `table`, by Bronze batch, that a check of the asset `key` has to look at.

    `mark` is the mark by which that asset says how far it has judged.
    """
    event = instance.get_latest_materialization_event(key)
    recorded: Any = event.asset_materialization.metadata.get("marks") if event and event.asset_materialization else None
    judged = (recorded.value if recorded else {}).get(mark, {"from": None, "to": 0})
    after, upto = (0, None) if config.everything else (judged["from"] or 0, judged["to"])
    return table.spans(BATCH, after, SLICE_RECORDS, upto)


def passes_without(wrong: Iterable[DataFrame]) -> dg.AssetCheckResult:
    """A check that passes if no row of `wrong` exists, and otherwise shows some of them."""
    slices = 0
    for rows in wrong:
        examples = rows.limit(EXAMPLES).toArrow().to_pylist()
        if examples:
            return dg.AssetCheckResult(passed=False, description=f"for instance {examples}")
        slices += 1
    return dg.AssetCheckResult(passed=True, metadata={"slices checked": slices})
