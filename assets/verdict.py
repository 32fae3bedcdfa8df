"""What a record's bytes amount to: an event, or a reason why not. One judge for Silver and for rejected."""

import datetime as dt
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from producer.events import VehicleEvent

Reason = Literal["tombstone", "not_json", "missing_field", "wrong_type", "out_of_range", "future", "duplicate"]

# How far an event may be ahead of its record's Kafka timestamp. Never the wall clock: a rebuild must judge alike.
CLOCK_SKEW_SECONDS = 3600


class Rejection(NamedTuple):
    """Why a record is no event: a reason to count by, and a detail for a person to act on."""

    reason: Reason
    detail: str


def judge() -> Callable[[bytes | None, float | None], VehicleEvent | Rejection]:
    """A judge of record values, given with the seconds of their Kafka timestamp since 1970, if they have one.

    An accepted event's time is in UTC.
    """
    decode = msgspec.json.Decoder(VehicleEvent).decode

    def verdict(value: bytes | None, landed: float | None) -> VehicleEvent | Rejection:
        if value is None:
            return Rejection("tombstone", "the record has no value")
        try:
            event = decode(value)
            if event.event_time.tzinfo is not dt.UTC:
                event = msgspec.structs.replace(event, event_time=event.event_time.astimezone(dt.UTC))
        except msgspec.ValidationError as error:
            return Rejection(_reason(str(error)), str(error))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Rejection("not_json", str(error))
        except RecursionError:
            return Rejection("not_json", "nested too deeply")
        except OverflowError:
            return Rejection("out_of_range", "the year in UTC is not between 1 and 9999 - at `$.event_time`")
        if landed is not None and event.event_time.timestamp() > landed + CLOCK_SKEW_SECONDS:
            ahead = event.event_time.timestamp() - landed
            return Rejection("future", f"{ahead:.0f} s after the record's Kafka timestamp - at `$.event_time`")
        return event

    return verdict


def _reason(message: str) -> Reason:
    """The class of one of msgspec's messages (https://jcristharif.com/msgspec/constraints.html)."""
    if "missing required field" in message:
        return "missing_field"
    bounds = (" >= ", " <= ", "of length", "Invalid enum value", "Number out of range")
    return "out_of_range" if any(bound in message for bound in bounds) else "wrong_type"
