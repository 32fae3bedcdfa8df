"""The made-up fleet: how many of what, where, when, and what a seed decides."""

import datetime as dt
from collections import Counter
from itertools import islice

import msgspec
import pytest

from producer.events import VehicleEvent
from producer.generator import generate

START = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def test_thirty_events_are_ten_of_each_type():
    assert Counter(event.type for event in generate(30, 1, START)) == {"car": 10, "bike": 10, "scoot": 10}


@pytest.mark.parametrize("count", [0, 1, 2, 31])
def test_as_many_as_asked_for(count):
    assert len(list(generate(count, 1, START))) == count


def test_no_two_events_share_an_id():
    assert len({event.event_id for event in generate(10_000, 1, START)}) == 10_000


@pytest.mark.parametrize("seed", [7, "7", "run-a"])
def test_the_same_seed_makes_the_same_events(seed):
    assert list(generate(30, seed, START)) == list(generate(30, seed, START))


def test_with_the_same_seed_later_only_the_time_differs():
    day = dt.timedelta(days=1)
    earlier, later = generate(30, "run-a", START), generate(30, "run-a", START + day)
    assert [msgspec.structs.replace(event, event_time=event.event_time + day) for event in earlier] == list(later)


def test_another_seed_makes_other_events():
    first, second = ({event.event_id for event in generate(30, seed, START)} for seed in ("run-a", "run-b"))
    assert not first & second


def test_events_are_valid_around_paris_and_within_the_minute_before_the_start():
    for event in generate(3000, 1, START):
        assert msgspec.json.decode(msgspec.json.encode(event), type=VehicleEvent) == event
        assert abs(event.lat - 48.8566) < 0.5
        assert abs(event.lon - 2.3522) < 0.5
        assert dt.timedelta(0) <= START - event.event_time < dt.timedelta(minutes=1)
        assert event.vehicle_id.startswith(event.type)


def test_events_are_made_as_they_are_taken():
    assert len(list(islice(generate(10**12, 1, START), 3))) == 3
