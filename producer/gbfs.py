"""Events from GBFS feeds, the format in which real fleets publish where their vehicles are.

Reads `free_bike_status` of 1.x and 2.x and `vehicle_status` of 3.0, with `vehicle_types`
(https://github.com/MobilityData/gbfs/blob/master/gbfs.md). What a document *is* decides how it is read,
never the version it claims, since feeds in the wild mislabel it.
"""

import datetime as dt
import http.client
import json
import math
import reprlib
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from producer.events import VehicleEvent, VehicleType
from producer.tally import Tally

FETCH_TIMEOUT_SECONDS = 30
# Some operators' servers turn away urllib's own name.
HTTP_HEADERS = {"User-Agent": "lakehouse-dagster", "Accept": "application/json"}
# Seconds since 1970 stay below this until the year 5138; a larger number can only be milliseconds.
LARGEST_SECONDS = 1e11
NAMESPACE = uuid.UUID("0f5c2b0e-7d0a-5c53-9c57-6b1f6f0c4a11")
STATUS_FEEDS = ("vehicle_status", "free_bike_status")
VEHICLE_TYPES_FEED = "vehicle_types"
FORM_FACTORS: Mapping[str, VehicleType] = {
    "bicycle": "bike",
    "cargo_bicycle": "bike",
    "car": "car",
    "moped": "scoot",
    "scooter": "scoot",
    "scooter_standing": "scoot",
    "scooter_seated": "scoot",
}
# Shows a refused vehicle: bounded, however large or deep it is.
EXAMPLE = reprlib.Repr()
EXAMPLE.maxdict, EXAMPLE.maxstring = 12, 60


class FeedError(Exception):
    """A document could not be fetched, or is no GBFS feed of vehicles."""


class _Refused(Exception):
    """One vehicle of a feed cannot become an event; the message is the reason it is counted under."""


def fetch(location: str) -> Any:
    """The JSON document at a path or an http(s) URL.

    Raises:
        FeedError: there is no such document, or it is not JSON.
    """
    try:
        if _is_url(location):
            request = urllib.request.Request(location, headers=HTTP_HEADERS)
            with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS) as answer:
                raw = answer.read()
        else:
            raw = Path(location).read_bytes()
        # Lenient, so that a NaN or a broken character refuses the vehicle that has it and not the feed.
        return json.loads(raw.decode("utf-8-sig", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise FeedError(f"cannot read {location}: {error}") from error


def load(location: str, vehicle_types: str | None = None) -> tuple[Any, Any | None]:
    """The status document at `location` and the vehicle types that belong to it, or None where there are none.

    `location` is a status feed or an auto-discovery file (`gbfs.json`). Types come from `vehicle_types`
    where given, else from where the auto-discovery file says, else from beside the status feed.

    Raises:
        FeedError: the status feed or `vehicle_types` is missing, any document is not JSON, or an auto-discovery
            file lists no feed of vehicles.
    """
    document = fetch(location)
    feeds = _discovered(document)
    if feeds:
        status = next((feeds[name] for name in STATUS_FEEDS if name in feeds), None)
        if status is None:
            raise FeedError(f"{location} lists no {' or '.join(STATUS_FEEDS)}, but: {', '.join(sorted(feeds))}")
        document = fetch(_resolved(location, status))
        listed = feeds.get(VEHICLE_TYPES_FEED)
    else:
        listed = VEHICLE_TYPES_FEED + Path(urllib.parse.urlsplit(location).path).suffix
    if vehicle_types is not None:
        return document, fetch(vehicle_types)
    return document, None if listed is None else _fetch_if_there(_resolved(location, listed))


def read_events(status: Any, vehicle_types: Any | None, refused: Tally) -> Iterator[VehicleEvent]:
    """The event of each vehicle in a status document; vehicles that have none are counted in `refused` instead.

    The event id is derived from what the vehicle reported: a snapshot read twice gives the same events.

    Raises:
        FeedError: a document is no GBFS document of its kind. Raised at once, not at the first event.
    """
    body = _body(status)
    vehicles = next((body[key] for key in ("vehicles", "bikes") if isinstance(body.get(key), list)), None)
    if vehicles is None:
        raise FeedError("the document has neither a list of 'vehicles' (GBFS 3) nor of 'bikes' (GBFS 1 and 2)")
    kinds = None if vehicle_types is None else _kinds(vehicle_types)
    return _events(vehicles, kinds, status.get("last_updated"), refused)


def _events(
    vehicles: list[Any], kinds: Mapping[str, VehicleType] | None, updated: Any, refused: Tally
) -> Iterator[VehicleEvent]:
    seen: set[uuid.UUID] = set()
    for number, vehicle in enumerate(vehicles):
        try:
            event = _event(vehicle, kinds, updated)
            if event.event_id in seen:
                raise _Refused("the same report a second time")
        except _Refused as reason:
            refused.refuse(str(reason), f"vehicle {number}: {EXAMPLE.repr(vehicle)}")
            continue
        seen.add(event.event_id)
        yield event


def _event(vehicle: Any, kinds: Mapping[str, VehicleType] | None, updated: Any) -> VehicleEvent:
    if not isinstance(vehicle, dict):
        raise _Refused("not an object")
    vehicle_id = _identifier(vehicle.get("vehicle_id")) or _identifier(vehicle.get("bike_id"))
    if vehicle_id is None:
        raise _Refused("no vehicle id")
    kind = _kind(vehicle, kinds)
    battery = _battery(vehicle.get("current_fuel_percent"))
    lat, lon = _position(vehicle)
    event_time = _time(vehicle.get("last_reported") or updated)
    report = [vehicle_id, kind, battery, lat, lon, event_time]
    return VehicleEvent(
        event_id=uuid.uuid5(NAMESPACE, msgspec.json.encode(report).decode()),
        vehicle_id=vehicle_id,
        type=kind,
        battery=battery,
        lat=lat,
        lon=lon,
        event_time=event_time,
    )


def _identifier(value: Any) -> str | None:
    """A GBFS ID as text, written as a string or as a number; None for a blank, broken or missing one."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if text.strip() and text == text.encode(errors="ignore").decode() else None


def _kind(vehicle: Mapping[str, Any], kinds: Mapping[str, VehicleType] | None) -> VehicleType:
    type_id = _identifier(vehicle.get("vehicle_type_id"))
    if type_id is not None:
        return (kinds or {}).get(type_id, "other")
    # Scooter feeds from before there was a types file name the form in a field of their own.
    form = _identifier(vehicle.get("vehicle_type"))
    if form is not None:
        return FORM_FACTORS.get(form, "other")
    # Without a types file every vehicle is a bicycle, says GBFS (vehicle_types.json).
    return "bike" if kinds is None else "other"


def _battery(fraction: Any) -> float | None:
    if fraction is None:
        return None
    value = _number(fraction, "fuel percent")
    if not 0 <= value <= 1:
        raise _Refused("fuel percent is not a fraction of 1")
    return round(value * 100, 6)


def _position(vehicle: Mapping[str, Any]) -> tuple[float, float]:
    lat, lon = vehicle.get("lat"), vehicle.get("lon")
    if lat is None or lon is None:
        raise _Refused("docked at a station, without a position" if vehicle.get("station_id") else "no position")
    north, east = _number(lat, "position"), _number(lon, "position")
    if abs(north) > 90 or abs(east) > 180:
        raise _Refused("position out of range")
    return north, east


def _time(reported: Any) -> dt.datetime:
    if not reported:
        raise _Refused("no time")
    try:
        if isinstance(reported, str) and not reported.strip().isdigit():
            moment = dt.datetime.fromisoformat(reported)
            if moment.tzinfo is None:
                raise _Refused("time without an offset")
            return moment.astimezone(dt.UTC)
        seconds = _number(reported, "time")
        return dt.datetime.fromtimestamp(seconds / 1000 if seconds > LARGEST_SECONDS else seconds, dt.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _Refused("unreadable time") from error


def _number(value: Any, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _Refused(f"unreadable {what}")
    return number


def _kinds(document: Any) -> Mapping[str, VehicleType]:
    listed = _body(document).get("vehicle_types")
    if not isinstance(listed, list):
        raise FeedError("the vehicle types document has no list of 'vehicle_types'")
    return {
        type_id: FORM_FACTORS.get(_identifier(entry.get("form_factor")) or "", "other")
        for entry in listed
        if isinstance(entry, dict) and (type_id := _identifier(entry.get("vehicle_type_id")))
    }


def _body(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise FeedError("the document is not a JSON object")
    body = document.get("data", document)
    if not isinstance(body, dict):
        raise FeedError("the document's 'data' is not a JSON object")
    return body


def _discovered(document: Any) -> Mapping[str, str]:
    """Feed name to URL, of an auto-discovery file: `data.feeds` in 3.0, `data.<language>.feeds` before."""
    body = _body(document)
    languages = [body, *(value for value in body.values() if isinstance(value, dict))]
    feeds: list[Any] = next((entry["feeds"] for entry in languages if isinstance(entry.get("feeds"), list)), [])
    return {
        feed["name"]: feed["url"]
        for feed in feeds
        if isinstance(feed, dict) and isinstance(feed.get("name"), str) and isinstance(feed.get("url"), str)
    }


def _is_url(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _resolved(location: str, reference: str) -> str:
    """The path or URL that `reference` means in the document at `location`."""
    if _is_url(reference):
        return reference
    try:
        return (
            urllib.parse.urljoin(location, reference) if _is_url(location) else str(Path(location).parent / reference)
        )
    except ValueError as error:
        raise FeedError(f"{location} refers to {reference!r}: {error}") from error


def _fetch_if_there(location: str) -> Any | None:
    try:
        return fetch(location)
    except FeedError as error:
        cause = error.__cause__
        # Object stores answer 403 where there is nothing.
        missing = isinstance(cause, urllib.error.HTTPError) and cause.code in (403, 404, 410)
        if missing or isinstance(cause, FileNotFoundError):
            return None
        raise
