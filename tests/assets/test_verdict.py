"""One verdict per record, by its bytes and its Kafka timestamp alone."""

import datetime as dt
import json
import math

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assets.verdict import EVENTS, REJECTIONS, Rejection, explain, judge, parse
from producer.events import VehicleEvent

LANDED = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC).timestamp()
REASONS = {"tombstone", "not_json", "missing_field", "wrong_type", "out_of_range", "future"}


@pytest.fixture
def valid(event):
    return event()


def verdict_on(value, landed=LANDED):
    return judge()(json.dumps(value).encode() if isinstance(value, dict) else value, landed)


def without(event, field):
    return {name: value for name, value in event.items() if name != field}


def test_a_valid_event_is_accepted_with_its_values(valid):
    accepted = verdict_on(valid)
    assert isinstance(accepted, VehicleEvent)
    assert (str(accepted.event_id), accepted.battery, accepted.lat) == (valid["event_id"], 50.0, 48.8)


@pytest.mark.parametrize(
    "changes",
    [
        {"battery": None},
        {"battery": 0},
        {"battery": 100},
        {"lat": -90, "lon": 180},
        {"event_time": "2026-01-01T13:00:00Z"},
        {"event_time": "1970-01-01T00:00:00+00:00"},
        {"event_time": "2026-01-01T23:59:59.123456+14:00"},
        {"vehicle_id": "зонт \u0000 ☂"},
        {"a field of tomorrow": {"deep": [1, 2]}},
    ],
)
def test_limits_and_unknown_fields_are_accepted(valid, changes):
    assert isinstance(verdict_on(valid | changes), VehicleEvent)


def test_a_pedal_bike_has_no_battery(valid):
    accepted = verdict_on(without(valid, "battery"))
    assert isinstance(accepted, VehicleEvent)
    assert accepted.battery is None


def test_the_time_of_an_accepted_event_is_in_utc(valid):
    accepted = verdict_on(valid | {"event_time": "2026-01-01T13:00:00+02:00"})
    assert isinstance(accepted, VehicleEvent)
    assert accepted.event_time.isoformat() == "2026-01-01T11:00:00+00:00"


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "tombstone", "no value"),
        (b"", "not_json", "truncated"),
        (b"\xff\xfe", "not_json", "byte 0"),
        (b'{"event_id": "0000', "not_json", "truncated"),
        (b'{"battery": NaN}', "not_json", "invalid character"),
        (b'{"x": ' + b"[" * 100_000, "not_json", "nested too deeply"),
        (b"[]", "wrong_type", "Expected `object`, got `array`"),
        (b"{}", "missing_field", "`event_id`"),
    ],
)
def test_what_is_no_event_object_is_rejected(value, reason, detail):
    rejection = verdict_on(value)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert detail in rejection.detail


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"event_id": "x"}, "wrong_type", "$.event_id"),
        ({"vehicle_id": ""}, "out_of_range", "$.vehicle_id"),
        ({"vehicle_id": 5}, "wrong_type", "got `int` - at `$.vehicle_id`"),
        ({"type": "boat"}, "out_of_range", "'boat' - at `$.type`"),
        ({"battery": "50"}, "wrong_type", "got `str` - at `$.battery`"),
        ({"battery": 100.1}, "out_of_range", "<= 100.0 - at `$.battery`"),
        ({"battery": 10**400}, "out_of_range", "$.battery"),
        ({"lat": 90.1}, "out_of_range", "$.lat"),
        ({"lon": None}, "wrong_type", "got `null` - at `$.lon`"),
        ({"event_time": "yesterday"}, "wrong_type", "$.event_time"),
        ({"event_time": "2026-01-01T12:00:00"}, "wrong_type", "timezone"),
        ({"event_time": "0001-01-01T00:00:00+14:00"}, "out_of_range", "year"),
        ({"event_time": "2026-01-01T13:00:01Z"}, "future", "3601 s after"),
    ],
)
def test_a_broken_field_is_rejected_with_its_place(valid, changes, reason, detail):
    rejection = verdict_on(valid | changes)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert detail in rejection.detail


@pytest.mark.parametrize("field", ["event_id", "vehicle_id", "type", "lat", "lon", "event_time"])
def test_a_missing_field_is_rejected_by_name(valid, field):
    assert verdict_on(without(valid, field)) == (
        "missing_field",
        f"Object missing required field `{field}`",
    )


def test_without_a_kafka_timestamp_no_time_is_in_the_future(valid):
    assert isinstance(verdict_on(valid | {"event_time": "2999-01-01T00:00:00Z"}, landed=None), VehicleEvent)


@settings(deadline=None)
@given(st.none() | st.binary())
def test_any_bytes_get_a_verdict(value):
    found = verdict_on(value)
    assert isinstance(found, VehicleEvent) or found.reason in REASONS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(st.sampled_from([*VehicleEvent.__struct_fields__, "extra"]), JSON))
def test_any_json_gets_a_verdict_and_what_is_accepted_keeps_the_contract(changes):
    base = {
        "event_id": "00000000-0000-4000-8000-000000000001",
        "vehicle_id": "v",
        "type": "bike",
        "lat": 1.0,
        "lon": 2.0,
        "event_time": "2026-01-01T12:00:00Z",
    }
    found = verdict_on(json.dumps(base | changes).encode())
    if isinstance(found, Rejection):
        assert found.reason in REASONS
    else:
        assert found.vehicle_id
        assert found.type in ("car", "bike", "scoot", "other")
        assert found.battery is None or 0 <= found.battery <= 100
        assert abs(found.lat) <= 90
        assert abs(found.lon) <= 180
        assert math.isfinite(found.lat + found.lon)
        assert found.event_time.timestamp() <= LANDED + 3600


def batch_of(*values):
    size = len(values)
    when = pa.array([dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)] * size, pa.timestamp("us", "UTC"))
    columns = {
        "batch": pa.array([1] * size, pa.int64()),
        "topic": pa.array(["t"] * size),
        "partition": pa.array([0] * size, pa.int32()),
        "offset": pa.array(range(size), pa.int64()),
        "timestamp": when,
        "key": pa.array([b"k"] * size, pa.binary()),
        "value": pa.array(values, pa.binary()),
        "ingested_at": when,
        "ingest_date": when.cast(pa.date32()),
    }
    return pa.RecordBatch.from_pydict(columns)


def test_parse_yields_the_valid_ones_and_explain_says_why_of_each(valid):
    batch = batch_of(b"junk", json.dumps(valid).encode(), None)
    (events,) = parse(iter([batch]))
    assert events.column_names == [column.split()[0] for column in EVENTS.split(", ")]
    assert events["offset"].to_pylist() == [1]
    assert events["event_date"].to_pylist() == [dt.date(2026, 1, 1)]
    (rejections,) = explain(iter([batch]))
    assert rejections.column_names == [column.split()[0] for column in REJECTIONS.split(", ")]
    assert rejections["reason"].to_pylist() == ["not_json", "duplicate", "tombstone"]
    assert rejections["event_id"].to_pylist() == [None, valid["event_id"], None]
    assert rejections["value"].to_pylist() == batch["value"].to_pylist()


def test_a_batch_without_rows_is_judged_too():
    (events,) = parse(iter([batch_of()]))
    (rejections,) = explain(iter([batch_of()]))
    assert (events.num_rows, rejections.num_rows) == (0, 0)
