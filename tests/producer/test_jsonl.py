"""JSON Lines: each line is an event or is counted with the reason and the first example."""

import json
import uuid

import pytest

from producer.jsonl import read_events
from producer.tally import Tally


def line(**changes) -> bytes:
    event = {
        "event_id": str(uuid.uuid4()),
        "vehicle_id": "bike-1",
        "type": "bike",
        "lat": 48.85,
        "lon": 2.35,
        "event_time": "2026-01-31T12:00:00+01:00",
    }
    return json.dumps(event | changes).encode() + b"\n"


def test_each_line_is_an_event_in_order():
    refused = Tally()
    events = list(read_events([line(vehicle_id=f"v{number}") for number in range(5)], refused))
    assert [event.vehicle_id for event in events] == ["v0", "v1", "v2", "v3", "v4"]
    assert refused.lines() == []


def test_blank_lines_and_windows_line_ends_are_no_matter():
    refused = Tally()
    lines = [b"\n", line().replace(b"\n", b"\r\n"), b"  \r\n", line().rstrip()]
    assert len(list(read_events(lines, refused))) == 2
    assert refused.lines() == []


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b"{\n", "1 refused: not JSON (first: line 2: Input data was truncated)"),
        (b"lat,lon\n", "1 refused: not JSON (first: line 2: JSON is malformed: invalid character (byte 0))"),
        (b"[]\n", "1 refused: not a vehicle event (first: line 2: Expected `object`, got `array`)"),
        (
            line(lat="48"),
            "1 refused: not a vehicle event (first: line 2: Expected `float`, got `str` - at `$.lat`)",
        ),
        (
            line(type="a\nb"),
            "1 refused: not a vehicle event (first: line 2: Invalid enum value 'a\\nb' - at `$.type`)",
        ),
    ],
)
def test_a_bad_line_is_counted_in_one_line_and_the_rest_is_read(bad, complaint):
    refused = Tally()
    assert len(list(read_events([line(), bad, line()], refused))) == 2
    assert refused.lines() == [complaint]


@pytest.mark.parametrize("bad", [b"\xff\xfe\n", line(vehicle_id="x").replace(b"x", b"\xff"), b'{"a":' * 100_000])
def test_bytes_that_are_no_json_at_all_are_counted(bad):
    refused = Tally()
    assert len(list(read_events([bad, line()], refused))) == 1
    assert refused.counts == {"not JSON": 1}


def test_the_most_frequent_reason_comes_first_with_its_first_example():
    refused = Tally()
    list(read_events([b"1\n", b"x\n", b"y\n"], refused))
    assert [text.split(" (")[0] for text in refused.lines()] == [
        "2 refused: not JSON",
        "1 refused: not a vehicle event",
    ]
    assert "line 2" in refused.lines()[0]


def test_a_line_is_read_when_its_event_is_taken():
    lines = iter([line(vehicle_id="first"), line(vehicle_id="second")])
    events = read_events(lines, Tally())
    assert next(events).vehicle_id == "first"
    assert b"second" in next(lines)
