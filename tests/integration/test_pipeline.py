"""Kafka to Gold, on both engines: the design's promises, read from the tables."""

import json
import uuid

import pyarrow.parquet as pq


def event(**changes):
    return {
        "event_id": str(uuid.uuid4()),
        "vehicle_id": "car-1",
        "type": "car",
        "battery": 50.0,
        "lat": 48.8,
        "lon": 2.3,
        "event_time": "2026-01-01T12:00:00Z",
    } | changes


def test_first_run(lakehouse, send):
    send(json.dumps(event()).encode(), b"junk")
    result = lakehouse.run()
    assert result.success
    assert lakehouse.rows("bronze/vehicles_events").num_rows == 2
    assert pq.read_table(lakehouse.root / "gold/stats").to_pylist() == [
        {"type": "car", "total": 1, "avg_battery": 50.0, "max_lat": 48.8}
    ]
