"""Literal rows as DataFrames of each engine, with the columns and types of the real tables."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import DataFrame

from assets import bronze
from resources.spark import SparkResource

LANDED = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def frame(engine: SparkResource) -> Callable[[pa.Schema, list[dict[str, Any]]], DataFrame]:
    """A DataFrame with the columns of an Arrow schema; what a row leaves out is null."""

    def build(schema: pa.Schema, rows: list[dict[str, Any]]) -> DataFrame:
        complete = [{name: row.get(name) for name in schema.names} for row in rows]
        # PySpark makes no DataFrame of an Arrow table without rows.
        padded = pa.Table.from_pylist([*complete, dict.fromkeys(schema.names)], schema.remove_metadata())
        return engine.session.createDataFrame(padded).limit(len(rows))

    return build


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """The JSON object of a valid event, with changes."""

    def build(number: int = 1, **changes: Any) -> dict[str, Any]:
        return {
            "event_id": f"00000000-0000-4000-8000-{number:012}",
            "vehicle_id": "car-1",
            "type": "car",
            "battery": 50.0,
            "lat": 48.8,
            "lon": 2.3,
            "event_time": "2026-01-01T12:00:00Z",
        } | changes

    return build


@pytest.fixture
def records(frame: Callable[..., DataFrame]) -> Callable[..., DataFrame]:
    """Bronze rows of the given values, one after the other in partition 0 of a batch; a dict is sent as JSON."""

    def build(*values: dict[str, Any] | bytes | None, batch: int = 1, offset: int = 0) -> DataFrame:
        rows = [
            {
                "batch": batch,
                "topic": "t",
                "partition": 0,
                "offset": offset + number,
                "timestamp": LANDED,
                "value": json.dumps(value).encode() if isinstance(value, dict) else value,
                "ingested_at": LANDED,
                "ingest_date": LANDED.date(),
            }
            for number, value in enumerate(values)
        ]
        return frame(bronze.TABLE.schema, rows)

    return build
