"""`python -m producer`: send vehicle events to Kafka. The one place in this package that reads the environment."""

import argparse
import datetime as dt
import math
import os
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from confluent_kafka import KafkaException

from producer import gbfs, jsonl
from producer.events import VehicleEvent
from producer.generator import generate
from producer.progress import progress
from producer.properties import read_properties
from producer.publish import DeliveryError, publish
from producer.tally import Tally
from resources.broker import BrokerError, EmbeddedBroker
from resources.jvm import JavaError

DEFAULT_COUNT = 30
BROKER_HOME = Path(".lakehouse/kafka")
DESCRIPTION = """\
Send vehicle events to a Kafka topic, each confirmed by the broker. The events
come from one of three sources: a made-up fleet around Paris (the default), a
file of JSON Lines, or a GBFS feed, which is how real fleets publish where their
vehicles are. Without the address of a Kafka broker, one is started here, and
stopped again at the end; it needs Java."""
EPILOG = """\
examples:
  python -m producer                           10 cars, 10 bikes, 10 scooters
  python -m producer --count 1000 --rate 50    a thousand, in 20 seconds
  python -m producer --gbfs https://example.org/gbfs.json
  zcat events.jsonl.gz | python -m producer --file -

an event as a line of a file, here wrapped (type: car, bike, scoot or other;
battery: percent or null; event_time: with its offset from UTC):
  {"event_id": "6fc1b2a4-41c1-4e0a-9d5c-0f3a5d1f7e62", "vehicle_id": "car-7",
   "type": "car", "battery": 81.5, "lat": 48.8566, "lon": 2.3522,
   "event_time": "2026-01-31T12:00:00Z"}

Entries of a file or a feed that are no vehicle events are left out, and
standard error says how many and why.

exit codes:
  0    every event was delivered
  1    an event was not delivered, or the source or Kafka could not be used
  2    wrong usage
  130  interrupted by Ctrl-C"""


class BadInput(Exception):
    """Something that the user named cannot be used; the message begins with the option that named it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"producer: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` and return its exit code.

    Raises:
        SystemExit: the usage is wrong, or help was asked for.
    """
    options = parse(argv)
    try:
        send(options)
    except KeyboardInterrupt:
        print("producer: interrupted", file=sys.stderr)
        return 130
    except (BadInput, DeliveryError, BrokerError, JavaError, KafkaException, OSError) as error:
        print(f"producer: error: {error}", file=sys.stderr)
        return 1
    return 0


def send(options: argparse.Namespace) -> None:
    """Send the events that `options` ask for, and print what was delivered and what was refused."""
    refused = Tally()
    with ExitStack() as stack:
        properties = {}
        if options.properties is not None:
            with blamed_on("--properties"):
                properties = read_properties(options.properties)
        events = source(options, refused, stack)
        servers = options.bootstrap_servers or properties.get("bootstrap.servers")
        if servers is None:
            servers = stack.enter_context(EmbeddedBroker(BROKER_HOME).serving(options.topic))
        try:
            with progress(options.count) as bar:
                delivery = publish(
                    events,
                    {**properties, "bootstrap.servers": servers},
                    options.topic,
                    rate=options.rate,
                    on_delivery=bar.update,
                )
        except SystemError:
            # What the Kafka client makes of a Ctrl-C that reaches a delivery report; no other error leaves one.
            raise KeyboardInterrupt from None
        finally:
            for line in refused.lines():
                print(line, file=sys.stderr)
        print(delivery.summary(options.topic))


def source(options: argparse.Namespace, refused: Tally, stack: ExitStack) -> Iterator[VehicleEvent]:
    """The events of the source that `options` name, read as they are taken; what is opened is closed by `stack`."""
    if options.gbfs is not None:
        with blamed_on("--gbfs"):
            return gbfs.read_events(*gbfs.load(options.gbfs, options.vehicle_types), refused)
    if options.file is not None:
        standard_input = options.file == "-"
        with blamed_on("--file"):
            path = 0 if standard_input else options.file
            return jsonl.read_events(stack.enter_context(open(path, "rb", closefd=not standard_input)), refused)
    return generate(options.count, options.seed or str(uuid.uuid4()), dt.datetime.now(dt.UTC))


@contextmanager
def blamed_on(option: str) -> Iterator[None]:
    """Name `option` in what goes wrong with what it names."""
    try:
        yield
    except (gbfs.FeedError, OSError, ValueError) as error:
        raise BadInput(f"{option}: {error}") from error


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options in `argv`, with defaults from the environment."""
    parser = Parser(
        prog="python -m producer",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to send")
    sources = what.add_mutually_exclusive_group()
    sources.add_argument(
        "--count",
        type=whole_number,
        metavar="N",
        help=f"N made-up events, cars, bikes and scooters in turn (default: {DEFAULT_COUNT})",
    )
    sources.add_argument("--file", metavar="F", help="the events in a file of JSON Lines; - is standard input")
    sources.add_argument(
        "--gbfs",
        metavar="PATH-OR-URL",
        help="the vehicles in a GBFS feed: free_bike_status (1.x, 2.x), vehicle_status (3.0), or the gbfs.json that "
        "lists one of them",
    )
    what.add_argument(
        "--vehicle-types",
        metavar="PATH-OR-URL",
        help="with --gbfs: the feed's vehicle_types (default: as gbfs.json says, else the one beside the feed)",
    )
    what.add_argument(
        "--seed", help="with --count: any text; the same one makes the same vehicles and event ids (default: random)"
    )
    what.add_argument(
        "--rate", type=positive_number, metavar="EVENTS_PER_SECOND", help="send no faster than this (default: no limit)"
    )
    where = parser.add_argument_group("where to send it")
    where.add_argument(
        "--topic",
        type=topic_name,
        default=os.environ.get("KAFKA_TOPIC") or "vehicles-events",
        help="a Kafka topic that exists (default: $KAFKA_TOPIC, else vehicles-events)",
    )
    where.add_argument(
        "--bootstrap-servers",
        metavar="HOST:PORT,...",
        default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
        help="addresses of Kafka brokers (default: $KAFKA_BOOTSTRAP_SERVERS, else a broker of its own, which makes the "
        f"topic and keeps its data in {BROKER_HOME})",
    )
    where.add_argument(
        "--properties",
        type=Path,
        metavar="FILE",
        default=os.environ.get("KAFKA_PROPERTIES_FILE") or None,
        help="key=value lines with librdkafka properties, for SASL and TLS (default: $KAFKA_PROPERTIES_FILE)",
    )
    options = parser.parse_args(argv)
    if options.vehicle_types is not None and options.gbfs is None:
        parser.error("argument --vehicle-types: needs --gbfs")
    if options.file is None and options.gbfs is None:
        options.count = DEFAULT_COUNT if options.count is None else options.count
    elif options.seed is not None:
        parser.error("argument --seed: needs --count")
    return options


def whole_number(text: str) -> int:
    """A number of events."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive_number(text: str) -> float:
    """A number of events per second."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def topic_name(text: str) -> str:
    """A name that Kafka allows."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no topic name: letters, digits, '.', '_' and '-', at most 249")
    return text


if __name__ == "__main__":
    sys.exit(main())
