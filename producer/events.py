"""The vehicle event: the one contract between whoever writes the topic and whoever reads it."""

import datetime as dt
import uuid
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

VehicleType = Literal["car", "bike", "scoot", "other"]


class VehicleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One report of one vehicle: the value of a Kafka record, as JSON in UTF-8, keyed by `vehicle_id`.

    Unknown fields are allowed and ignored. The JSON Schema is `msgspec.json.schema(VehicleEvent)`.
    """

    event_id: Annotated[uuid.UUID, Meta(description="Identity of the report; the same id is the same event.")]
    vehicle_id: Annotated[str, Meta(min_length=1, description="Identity of the vehicle, as its operator names it.")]
    type: Annotated[VehicleType, Meta(description="What kind of vehicle it is.")]
    battery: (
        Annotated[float, Meta(ge=0, le=100, description="Percent of charge or fuel; null where there is none.")] | None
    ) = None
    lat: Annotated[float, Meta(ge=-90, le=90, description="Degrees north, WGS 84.")]
    lon: Annotated[float, Meta(ge=-180, le=180, description="Degrees east, WGS 84.")]
    event_time: Annotated[dt.datetime, Meta(tz=True, description="When it was reported; RFC 3339 with offset.")]
