"""What a record's bytes amount to: an event, or a reason why not. One judge for Silver and for rejected.

Engines run this in Python processes of their own, which import this module first: it imports no Dagster and no
PySpark, which would cost each of them seconds.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa

from producer.events import VehicleEvent

Reason = Literal["tombstone", "not_json", "missing_field", "wrong_type", "out_of_range", "future", "duplicate"]

# How far an event may be ahead of its record's Kafka timestamp. Never the wall clock: a rebuild must judge alike.
CLOCK_SKEW_SECONDS = 3600


class Rejection(NamedTuple):
    """Why a record is no event: a reason to count by, and a detail for a person to act on."""

    reason: Reason
    detail: str | None


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


# What `parse` yields, and what `explain` yields.
EVENTS = (
    "event_id string, vehicle_id string, type string, battery double, lat double, lon double, event_time timestamp, "
    "event_date date, batch bigint, topic string, partition int, offset bigint, ingested_at timestamp"
)
REJECTIONS = (
    "batch bigint, topic string, partition int, offset bigint, timestamp timestamp, key binary, value binary, "
    "reason string, detail string, ingested_at timestamp, ingest_date date, event_id string"
)


def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The valid events among Bronze records, as columns `EVENTS`; the others are left out."""
    verdict = judge()
    for batch in batches:
        verdicts = list(map(verdict, batch["value"].to_pylist(), _seconds(batch["timestamp"])))
        accepted = pa.array([isinstance(found, VehicleEvent) for found in verdicts], pa.bool_())
        events = [found for found in verdicts if isinstance(found, VehicleEvent)]
        times = pa.array([event.event_time for event in events], pa.timestamp("us", "UTC"))
        judged = {
            "event_id": pa.array([str(event.event_id) for event in events], pa.string()),
            "vehicle_id": pa.array([event.vehicle_id for event in events], pa.string()),
            "type": pa.array([event.type for event in events], pa.string()),
            "battery": pa.array([event.battery for event in events], pa.float64()),
            "lat": pa.array([event.lat for event in events], pa.float64()),
            "lon": pa.array([event.lon for event in events], pa.float64()),
            "event_time": times,
            "event_date": times.cast(pa.date32()),
        }
        yield _with_columns(batch.filter(accepted), judged, EVENTS)


def explain(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Every one of some Bronze records with why it is rejected, as columns `REJECTIONS`.

    A valid one can only be here as a duplicate: it keeps its event_id, and its detail is for those who know the other.
    """
    verdict = judge()
    for batch in batches:
        verdicts = list(map(verdict, batch["value"].to_pylist(), _seconds(batch["timestamp"])))
        why = [Rejection("duplicate", None) if isinstance(found, VehicleEvent) else found for found in verdicts]
        ids = [str(found.event_id) if isinstance(found, VehicleEvent) else None for found in verdicts]
        judged = {
            "reason": pa.array([rejection.reason for rejection in why], pa.string()),
            "detail": pa.array([rejection.detail for rejection in why], pa.string()),
            "event_id": pa.array(ids, pa.string()),
        }
        yield _with_columns(batch, judged, REJECTIONS)


def _seconds(timestamps: pa.Array) -> list[float | None]:
    """Seconds since 1970, computed as one double from whole microseconds wherever it runs."""
    micros = timestamps.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return [None if value is None else value / 1e6 for value in micros.to_pylist()]


def _with_columns(records: pa.RecordBatch, judged: dict[str, pa.Array], columns: str) -> pa.RecordBatch:
    names = [column.split()[0] for column in columns.split(", ")]
    return pa.RecordBatch.from_arrays([judged[n] if n in judged else records[n] for n in names], names)
