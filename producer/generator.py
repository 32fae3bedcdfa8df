"""Made-up vehicles around Paris, the same ones for the same seed."""

import datetime as dt
import random
import uuid
from collections.abc import Iterator

from producer.events import VehicleEvent, VehicleType

PARIS = (48.8566, 2.3522)
FLEET: tuple[VehicleType, ...] = ("car", "bike", "scoot")
VEHICLES_PER_TYPE = 1000


def generate(count: int, seed: int | str, start: dt.datetime) -> Iterator[VehicleEvent]:
    """Yield `count` events, the types of `FLEET` in turn, each reported within the minute before `start`.

    `seed` decides everything but the time, event ids included: sent twice, they are the same events.
    """
    chance = random.Random(seed)
    for number in range(count):
        kind = FLEET[number % len(FLEET)]
        yield VehicleEvent(
            event_id=uuid.UUID(int=chance.getrandbits(128), version=4),
            vehicle_id=f"{kind}-{chance.randrange(VEHICLES_PER_TYPE):04}",
            type=kind,
            battery=round(chance.uniform(5, 100), 1),
            lat=round(chance.gauss(PARIS[0], 0.03), 6),
            lon=round(chance.gauss(PARIS[1], 0.05), 6),
            event_time=start - dt.timedelta(milliseconds=chance.randrange(60_000)),
        )
