"""Events as JSON Lines: one JSON object a line (https://jsonlines.org)."""

from collections.abc import Iterable, Iterator

import msgspec

from producer.events import VehicleEvent
from producer.tally import Tally


def read_events(lines: Iterable[bytes], refused: Tally) -> Iterator[VehicleEvent]:
    """Yield the event of each line; blank lines are passed over, bad ones counted in `refused`."""
    decoder = msgspec.json.Decoder(VehicleEvent)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except msgspec.ValidationError as error:
            refused.refuse("not a vehicle event", f"line {number}: {error}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            refused.refuse("not JSON", f"line {number}: {error}")
