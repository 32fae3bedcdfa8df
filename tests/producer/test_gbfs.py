"""GBFS: what each version says of a vehicle, how feeds deviate, and that every vehicle is an event or is counted."""

import datetime as dt
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from producer.events import VehicleEvent
from producer.gbfs import FeedError, load, read_events
from producer.tally import Tally

# How long an example takes says more about the machine than about the code.
PATIENTLY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VEHICLE = {"bike_id": "a", "lat": 48.85, "lon": 2.35, "last_reported": 1_717_999_940}


def seconds(moment: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, dt.UTC)


def status(*vehicles, **changes):
    return {"last_updated": 1_718_000_000, "ttl": 60, "data": {"bikes": list(vehicles)}} | changes


def types(**form_factors):
    listed = [{"vehicle_type_id": name, "form_factor": form} for name, form in form_factors.items()]
    return {"last_updated": 1_718_000_000, "data": {"vehicle_types": listed}}


def read(document, vehicle_types=None):
    refused = Tally()
    return list(read_events(document, vehicle_types, refused)), dict(refused.counts)


def rows(events):
    return [(e.vehicle_id, e.type, e.battery, e.lat, e.lon, e.event_time) for e in events]


# Feeds of each version


def test_free_bike_status_1_0(feeds):
    events, refused = read(*load(str(feeds / "1.0/free_bike_status.json")))
    updated = seconds(1_718_000_000)
    assert rows(events) == [
        ("moulin-1", "bike", None, 48.8841, 2.3323, updated),
        ("2", "bike", None, 48.8402, 2.3211, updated),
        ("moulin-3", "scoot", None, 48.8611, 2.3358, updated),
        ("moulin-1", "bike", None, 48.8911, 2.3401, updated),
    ]
    assert refused == {"docked at a station, without a position": 1, "the same report a second time": 1}


def test_free_bike_status_2_3_with_the_vehicle_types_beside_it(feeds):
    events, refused = read(*load(str(feeds / "2.3/free_bike_status.json")))
    assert rows(events) == [
        ("a1", "bike", None, 48.8530, 2.3499, seconds(1_717_999_940)),
        ("b2", "bike", 7.0, 48.8606, 2.3376, seconds(1_717_999_941) + dt.timedelta(milliseconds=123)),
        ("c3", "bike", None, 48.8738, 2.2950, seconds(1_717_999_942)),
        ("d4", "scoot", 100.0, 48.8462, 2.3447, seconds(1_717_999_943)),
        ("e5", "scoot", 58.5, 48.8422, 2.3219, seconds(1_717_999_944)),
        ("f6", "car", 50.0, 48.8330, 2.3708, seconds(1_717_999_945)),
        ("g7", "other", None, 48.8867, 2.3431, seconds(1_717_999_946)),
        ("h8", "other", None, 48.8656, 2.3212, seconds(1_718_000_000)),
    ]
    assert refused == {
        "docked at a station, without a position": 1,
        "no position": 1,
        "no vehicle id": 1,
        "fuel percent is not a fraction of 1": 1,
        "position out of range": 1,
        "unreadable position": 1,
        "unreadable time": 1,
        "time without an offset": 1,
        "not an object": 1,
    }


def test_vehicle_status_3_0_with_the_vehicle_types_beside_it(feeds):
    events, refused = read(*load(str(feeds / "3.0/vehicle_status.json")))
    reported = dt.datetime(2024, 6, 10, 6, 12, 21, tzinfo=dt.UTC)
    assert rows(events) == [
        ("9d2f-1", "scoot", 62.5, 48.8049, 2.1204, reported),
        ("9d2f-2", "scoot", None, 48.8052, 2.1301, reported + dt.timedelta(seconds=1)),
        ("9d2f-3", "car", 0.0, 48.8011, 2.1266, reported + dt.timedelta(seconds=59)),
    ]
    assert refused == {"docked at a station, without a position": 1}


def test_a_refused_vehicle_is_shown_with_its_number_in_the_feed():
    refused = Tally()
    list(read_events(status(VEHICLE, VEHICLE | {"bike_id": "b", "lat": None}), None, refused))
    assert refused.lines() == [
        "1 refused: no position (first: vehicle 1: "
        "{'bike_id': 'b', 'last_reported': 1717999940, 'lat': None, 'lon': 2.35})"
    ]


# What a vehicle is


@pytest.mark.parametrize(
    ("form_factor", "kind"),
    [
        ("bicycle", "bike"),
        ("cargo_bicycle", "bike"),
        ("car", "car"),
        ("moped", "scoot"),
        ("scooter", "scoot"),
        ("scooter_standing", "scoot"),
        ("scooter_seated", "scoot"),
        ("other", "other"),
        ("hovercraft", "other"),
        (None, "other"),
    ],
)
def test_form_factors(form_factor, kind):
    (event,), _ = read(status(VEHICLE | {"vehicle_type_id": "t"}), types(t=form_factor))
    assert event.type == kind


def test_without_a_types_file_a_vehicle_is_a_bicycle_as_gbfs_says():
    (event,), _ = read(status(VEHICLE))
    assert event.type == "bike"


def test_a_type_that_no_file_explains_is_other():
    (event,), _ = read(status(VEHICLE | {"vehicle_type_id": "t"}))
    assert event.type == "other"


def test_a_vehicle_without_type_beside_a_types_file_is_other():
    (event,), _ = read(status(VEHICLE), types(t="car"))
    assert event.type == "other"


# Numbers and times


@pytest.mark.parametrize(("fraction", "percent"), [(0, 0), (0.07, 7), (0.29, 29), (1, 100), ("0.5", 50), (None, None)])
def test_fuel_is_a_fraction_there_and_percent_here(fraction, percent):
    (event,), _ = read(status(VEHICLE | {"current_fuel_percent": fraction, "current_range_meters": 9000}))
    assert event.battery == percent


@pytest.mark.parametrize(
    ("fraction", "reason"),
    [
        (1.5, "fuel percent is not a fraction of 1"),
        (-0.1, "fuel percent is not a fraction of 1"),
        (True, "unreadable fuel percent"),
        ("full", "unreadable fuel percent"),
    ],
)
def test_fuel_that_is_no_fraction_is_not_interpreted(fraction, reason):
    assert read(status(VEHICLE | {"current_fuel_percent": fraction})) == ([], {reason: 1})


@pytest.mark.parametrize(
    "reported",
    [
        1_717_999_940,
        1_717_999_940.0,
        "1717999940",
        1_717_999_940_000,
        "1717999940000",
        "2024-06-10T06:12:20Z",
        "2024-06-10T08:12:20+02:00",
        "2024-06-10T06:12:20.000+00:00",
    ],
)
def test_time_in_seconds_milliseconds_or_rfc_3339(reported):
    (event,), _ = read(status(VEHICLE | {"last_reported": reported}))
    assert event.event_time == seconds(1_717_999_940)
    assert event.event_time.tzinfo is dt.UTC


@pytest.mark.parametrize("updated", [1_718_000_000, 1_718_000_000_000, "2024-06-10T06:13:20Z"])
@pytest.mark.parametrize("reported", [None, 0, ""])
def test_a_vehicle_without_a_time_has_the_feeds(updated, reported):
    (event,), _ = read(status(VEHICLE | {"last_reported": reported}, last_updated=updated))
    assert event.event_time == seconds(1_718_000_000)


@pytest.mark.parametrize(
    ("reported", "reason"),
    [
        (None, "no time"),
        ("soon", "unreadable time"),
        (True, "unreadable time"),
        (1e300, "unreadable time"),
        ([1], "unreadable time"),
        ("2024-06-10T06:12:20", "time without an offset"),
    ],
)
def test_a_time_that_cannot_be_known_is_a_reason(reported, reason):
    assert read(status(VEHICLE | {"last_reported": reported}, last_updated=None)) == ([], {reason: 1})


# Identity


def test_the_same_feed_twice_gives_the_same_event_ids(feeds):
    for version in ("1.0/free_bike_status.json", "2.3/free_bike_status.json", "3.0/vehicle_status.json"):
        first, second = (read(*load(str(feeds / version)))[0] for _ in range(2))
        assert first == second


@pytest.mark.parametrize(
    "change",
    [
        {"bike_id": "b"},
        {"lat": 48.8500001},
        {"lon": 2.3500001},
        {"last_reported": 1_717_999_941},
        {"current_fuel_percent": 0.5},
        {"vehicle_type": "car"},
    ],
)
def test_whatever_else_was_reported_is_another_event(change):
    (first, second), refused = read(status(VEHICLE, VEHICLE | change))
    assert first.event_id != second.event_id
    assert refused == {}


def test_what_is_not_in_an_event_does_not_change_its_id():
    (event,), refused = read(status(VEHICLE, VEHICLE | {"is_reserved": 1, "rental_uris": {}}))
    assert event.vehicle_id == "a"
    assert refused == {"the same report a second time": 1}


@pytest.mark.parametrize("vehicle_id", ["", "  ", None, True, 1.5, [], {}, "\ud800"])
def test_an_id_that_names_nothing_is_a_reason(vehicle_id):
    assert read(status(VEHICLE | {"bike_id": vehicle_id})) == ([], {"no vehicle id": 1})


# Documents


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "the document is not a JSON object"),
        ({"data": 5}, "the document's 'data' is not a JSON object"),
        ({"data": {"stations": []}}, "neither a list of 'vehicles' .* nor of 'bikes'"),
        ({"data": {"bikes": {"a": 1}}}, "neither a list of 'vehicles' .* nor of 'bikes'"),
    ],
)
def test_a_document_that_is_no_status_feed_is_refused_at_once(document, complaint):
    with pytest.raises(FeedError, match=complaint):
        read_events(document, None, Tally())


def test_a_document_that_is_no_types_file_is_refused_at_once():
    with pytest.raises(FeedError, match="no list of 'vehicle_types'"):
        read_events(status(VEHICLE), status(), Tally())


def test_the_version_a_feed_claims_does_not_matter():
    claims = [read({**status(VEHICLE), "version": version}) for version in ("1.0", "2.3", "3.0", None, 99)]
    assert all(claim == claims[0] for claim in claims)


def test_one_unreadable_character_or_number_refuses_one_vehicle(tmp_path):
    document = tmp_path / "free_bike_status.json"
    good, latin, endless = (json.dumps(VEHICLE | {"bike_id": name}).encode() for name in ("good", "latin", "endless"))
    bikes = b",".join([good, latin.replace(b"latin", b"v\xe9lo"), endless.replace(b"48.85", b"NaN")])
    document.write_bytes(b'\xef\xbb\xbf{"last_updated": 1718000000, "data": {"bikes": [' + bikes + b"]}}")
    (event,), refused = read(*load(str(document)))
    assert event.vehicle_id == "good"
    assert refused == {"no vehicle id": 1, "unreadable position": 1}


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"{", b"[" * 100_000])
def test_a_file_that_is_not_json_is_named(tmp_path, content):
    (tmp_path / "feed.json").write_bytes(content)
    with pytest.raises(FeedError, match=r"cannot read .*feed\.json: "):
        load(str(tmp_path / "feed.json"))


@pytest.mark.parametrize("location", ["missing.json", "http://127.0.0.1:1/feed", "http://127.0.0.1:x/feed", "http://["])
def test_what_cannot_be_fetched_is_named(location):
    with pytest.raises(FeedError, match="cannot read "):
        load(location)


# Vehicle types and auto-discovery


def test_vehicle_types_from_elsewhere(tmp_path, feeds):
    shutil.copy(feeds / "3.0/vehicle_status.json", tmp_path)
    feed, elsewhere = str(tmp_path / "vehicle_status.json"), str(feeds / "3.0/vehicle_types.json")
    assert {event.type for event in read(*load(feed))[0]} == {"other"}
    assert {event.type for event in read(*load(feed, elsewhere))[0]} == {"scoot", "car"}


def test_vehicle_types_that_were_asked_for_must_be_there(tmp_path, feeds):
    with pytest.raises(FeedError, match=r"cannot read .*types\.json"):
        load(str(feeds / "3.0/vehicle_status.json"), str(tmp_path / "types.json"))


def test_vehicle_types_that_are_there_must_be_json(tmp_path, feeds):
    shutil.copy(feeds / "3.0/vehicle_status.json", tmp_path)
    (tmp_path / "vehicle_types.json").write_text("oops")
    with pytest.raises(FeedError, match=r"cannot read .*vehicle_types\.json"):
        load(str(tmp_path / "vehicle_status.json"))


def served(folder: Path, source: Path, discovery: object) -> None:
    shutil.copytree(source, folder / "fr")
    (folder / "gbfs.json").write_text(json.dumps(discovery))


@pytest.mark.parametrize("beside", ["vehicle_types.json", None])
def test_a_status_feed_by_url_finds_the_types_beside_it_or_none(tmp_path, feeds, website, beside):
    served(tmp_path, feeds / "2.3", {})
    if beside is None:
        (tmp_path / "fr/vehicle_types.json").unlink()
    events, _ = read(*load(f"{website}/fr/free_bike_status.json"))
    assert events[5].type == ("other" if beside is None else "car")


def test_auto_discovery_2_3_by_language(tmp_path, feeds, website):
    names = ("free_bike_status", "vehicle_types", "system_information")
    listed = [{"name": name, "url": f"{website}/fr/{name}.json"} for name in names]
    served(tmp_path, feeds / "2.3", {"last_updated": 1, "ttl": 0, "version": "2.3", "data": {"fr": {"feeds": listed}}})
    assert read(*load(f"{website}/gbfs.json")) == read(*load(str(feeds / "2.3/free_bike_status.json")))


def test_auto_discovery_3_0(tmp_path, feeds, website):
    listed = [{"name": name, "url": f"{website}/fr/{name}.json"} for name in ("vehicle_status", "vehicle_types")]
    served(tmp_path, feeds / "3.0", {"last_updated": "2024-06-10T08:13:20+02:00", "data": {"feeds": listed}})
    assert read(*load(f"{website}/gbfs.json")) == read(*load(str(feeds / "3.0/vehicle_status.json")))


def test_auto_discovery_in_a_folder_with_relative_addresses(tmp_path, feeds):
    listed = [{"name": name, "url": f"fr/{name}.json"} for name in ("vehicle_status", "vehicle_types")]
    served(tmp_path, feeds / "3.0", {"data": {"feeds": listed}})
    assert read(*load(str(tmp_path / "gbfs.json"))) == read(*load(str(feeds / "3.0/vehicle_status.json")))


def test_auto_discovery_by_url_never_reads_a_local_file(tmp_path, feeds, website):
    local = str(feeds / "3.0/vehicle_status.json")
    served(tmp_path, feeds / "3.0", {"data": {"feeds": [{"name": "vehicle_status", "url": local}]}})
    with pytest.raises(FeedError, match=f"cannot read {website}{local}: HTTP Error 404"):
        load(f"{website}/gbfs.json")


def test_auto_discovery_that_lists_missing_vehicle_types(tmp_path, feeds, website):
    listed = [{"name": name, "url": f"{website}/fr/{name}.json"} for name in ("vehicle_status", "vehicle_types")]
    served(tmp_path, feeds / "3.0", {"data": {"feeds": listed}})
    (tmp_path / "fr/vehicle_types.json").unlink()
    assert {event.type for event in read(*load(f"{website}/gbfs.json"))[0]} == {"other"}


def test_auto_discovery_without_vehicles_says_what_there_is(tmp_path):
    listed = [{"name": name, "url": f"{name}.json"} for name in ("system_information", "station_status")]
    (tmp_path / "gbfs.json").write_text(json.dumps({"data": {"en": {"feeds": listed}}}))
    with pytest.raises(FeedError, match="lists no vehicle_status or free_bike_status, but: station_status, system_inf"):
        load(str(tmp_path / "gbfs.json"))


def test_auto_discovery_with_an_address_that_is_none(tmp_path, website):
    (tmp_path / "gbfs.json").write_text(json.dumps({"feeds": [{"name": "vehicle_status", "url": "//["}]}))
    with pytest.raises(FeedError, match=r"refers to '//\['"):
        load(f"{website}/gbfs.json")


# Whatever a feed holds

TEXT = st.text(st.characters(), max_size=20)  # with lone surrogates, which JSON can spell
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
TIMES = st.integers(0, 2 * 10**12) | st.datetimes().map(dt.datetime.isoformat) | JSON
VEHICLES = st.fixed_dictionaries(
    {},
    optional={
        "bike_id": TEXT | st.integers() | JSON,
        "vehicle_id": TEXT | JSON,
        "lat": st.floats(-91, 91) | JSON,
        "lon": st.floats(-181, 181) | JSON,
        "current_fuel_percent": st.floats(0, 1) | JSON,
        "last_reported": TIMES,
        "vehicle_type_id": st.sampled_from(["t", "u"]) | JSON,
        "vehicle_type": st.sampled_from(["scooter", "car"]) | JSON,
        "station_id": JSON,
    },
)
TYPES = st.none() | st.lists(
    st.fixed_dictionaries({}, optional={"vehicle_type_id": st.just("t") | JSON, "form_factor": st.just("car") | JSON})
    | JSON
).map(lambda listed: {"data": {"vehicle_types": listed}})


@PATIENTLY
@given(vehicles=st.lists(VEHICLES | JSON, max_size=8), vehicle_types=TYPES, updated=TIMES)
@example(vehicles=[VEHICLE, VEHICLE, {}, None], vehicle_types=None, updated=None)
def test_every_vehicle_is_an_event_or_counted(vehicles, vehicle_types, updated):
    events, refused = read(status(*vehicles, last_updated=updated), vehicle_types)
    assert len(events) + sum(refused.values()) == len(vehicles)
    for event in events:
        assert msgspec.json.decode(msgspec.json.encode(event), type=VehicleEvent) == event
    assert len({event.event_id for event in events}) == len(events)


@PATIENTLY
@given(
    document=JSON | st.dictionaries(st.sampled_from(["data", "bikes", "vehicles", "feeds"]), JSON), types_document=JSON
)
def test_no_document_raises_anything_but_feed_error(document, types_document):
    with suppress(FeedError):
        list(read_events(document, types_document, Tally()))


@PATIENTLY
@given(content=st.binary() | JSON.map(lambda document: json.dumps(document).encode()))
def test_no_file_raises_anything_but_feed_error(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "feed.json"
        path.write_bytes(content)
        with suppress(FeedError):
            list(read_events(*load(str(path)), Tally()))
