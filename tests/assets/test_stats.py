"""Gold's statistics per type."""

import pyarrow as pa

from assets.daily_stats import summarize
from assets.silver import valid_events
from assets.stats import SCHEMA, total_up


def test_one_row_per_type_over_all_days(records, event):
    daily = summarize(
        valid_events(
            records(
                event(1, battery=10, lat=1.0),
                event(2, battery=20, lat=5.0, event_time="2025-01-01T00:00:00Z"),
                event(3, battery=None, lat=3.0),
                event(4, type="bike", battery=None, lat=-1.0),
            )
        )
    )
    assert total_up(daily).toArrow().to_pylist() == [
        {"type": "bike", "total": 1, "avg_battery": None, "max_lat": -1.0},
        {"type": "car", "total": 3, "avg_battery": 15.0, "max_lat": 5.0},
    ]


def test_the_columns_are_those_that_readers_were_promised(records, event):
    stats = total_up(summarize(valid_events(records(event(1))))).toArrow()
    assert stats.schema.remove_metadata().equals(
        pa.schema(
            [("type", pa.string()), ("total", pa.int64()), ("avg_battery", pa.float64()), ("max_lat", pa.float64())]
        )
    )
    assert stats.schema.names == SCHEMA.names


def test_no_events_no_rows(records):
    assert total_up(summarize(valid_events(records()))).count() == 0
