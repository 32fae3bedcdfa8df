"""The event type: what encodes, what decodes, and what is refused with which words."""

import datetime as dt
import json
import re
import uuid

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.events import VehicleEvent

# How long an example takes says more about the machine than about the code.
PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
EVENTS = st.builds(
    VehicleEvent,
    event_id=st.uuids(),
    vehicle_id=st.text(min_size=1),
    type=st.sampled_from(["car", "bike", "scoot", "other"]),
    battery=st.none() | st.floats(0, 100),
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    event_time=st.datetimes(timezones=OFFSETS),
)
VALID = {
    "event_id": "6fc1b2a4-41c1-4e0a-9d5c-0f3a5d1f7e62",
    "vehicle_id": "car-7",
    "type": "car",
    "battery": 81.5,
    "lat": 48.8566,
    "lon": 2.3522,
    "event_time": "2026-01-31T12:00:00Z",
}


def decoded(document):
    return msgspec.json.decode(json.dumps(document), type=VehicleEvent)


@PATIENTLY
@given(EVENTS)
def test_what_is_encoded_decodes_to_the_same_event(event):
    assert msgspec.json.decode(msgspec.json.encode(event), type=VehicleEvent) == event


def test_an_event_is_json_with_these_names_and_forms():
    event = VehicleEvent(
        event_id=uuid.UUID("6fc1b2a4-41c1-4e0a-9d5c-0f3a5d1f7e62"),
        vehicle_id="car-7",
        type="car",
        battery=81.5,
        lat=48.8566,
        lon=2.3522,
        event_time=dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
    )
    assert json.loads(msgspec.json.encode(event)) == VALID


def test_the_battery_may_be_absent_or_null():
    without = {name: value for name, value in VALID.items() if name != "battery"}
    assert decoded(without).battery is None
    assert decoded(VALID | {"battery": None}).battery is None


def test_unknown_fields_are_ignored():
    assert decoded(VALID | {"speed": 12, "nested": {"deep": []}}) == decoded(VALID)


@pytest.mark.parametrize("field", [name for name in VALID if name != "battery"])
def test_every_other_field_is_required(field):
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field}`"):
        decoded({name: value for name, value in VALID.items() if name != field})


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("event_id", "7", "Invalid UUID"),
        ("vehicle_id", "", "length >= 1"),
        ("vehicle_id", 7, "Expected `str`, got `int`"),
        ("type", "tram", "Invalid enum value 'tram'"),
        ("battery", 100.1, "Expected `float` <= 100"),
        ("battery", -0.1, "Expected `float` >= 0"),
        ("battery", "full", "Expected `float | null`, got `str`"),
        ("lat", 90.1, "Expected `float` <= 90"),
        ("lat", None, "Expected `float`, got `null`"),
        ("lon", -180.1, "Expected `float` >= -180"),
        ("event_time", "2026-01-31T12:00:00", "with a timezone component"),
        ("event_time", "yesterday", "Invalid RFC3339 encoded datetime"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(field, value, complaint):
    with pytest.raises(msgspec.ValidationError, match=rf"{re.escape(complaint)}.*`\$\.{field}`"):
        decoded(VALID | {field: value})


def test_the_json_schema_describes_every_field():
    schema = msgspec.json.schema(VehicleEvent)["$defs"]["VehicleEvent"]
    assert set(schema["properties"]) == set(VALID)
    assert set(schema["required"]) == set(VALID) - {"battery"}
    assert all("description" in json.dumps(field) for field in schema["properties"].values())
