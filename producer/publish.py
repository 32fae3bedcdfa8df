"""Sending events to a Kafka topic, every delivery confirmed."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producer.events import VehicleEvent

CONNECT_TIMEOUT_SECONDS = 10
# Short, since Ctrl-C waits for it; asked again until the broker answers.
REQUEST_TIMEOUT_SECONDS = 1
DELIVERY_TIMEOUT_SECONDS = 60
# A topic that was made a moment ago is not known to every broker yet.
NEW_TOPIC_SECONDS = 3
# How far sending may lag behind its rate and still catch up: timers are not exact, and a slow source is no debt.
CATCH_UP_SECONDS = 0.05


class DeliveryError(Exception):
    """The broker did not answer, or did not confirm every event."""


@dataclass(frozen=True)
class Delivery:
    """What the broker confirmed: how many events, per partition the offsets of the first and the last, and how soon."""

    delivered: int
    offsets: Mapping[int, tuple[int, int]]
    seconds: float

    def summary(self, topic: str) -> str:
        """One line about it."""
        offsets = ", ".join(f"partition {number} offsets {a} to {b}" for number, (a, b) in self.offsets.items())
        events = "1 event" if self.delivered == 1 else f"{self.delivered} events"
        return f"{events} delivered to {topic} in {self.seconds:.1f} s" + (f": {offsets}" if offsets else "")


def publish(
    events: Iterable[VehicleEvent],
    config: Mapping[str, Any],
    topic: str,
    *,
    rate: float | None = None,
    on_delivery: Callable[[], None] = lambda: None,
) -> Delivery:
    """Send every event, keyed by its vehicle, and return once each is acknowledged by all in-sync replicas.

    `config` is librdkafka's (https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md);
    `rate` bounds the events sent per second; `on_delivery` is called once per confirmed event.

    Raises:
        DeliveryError: a setting in `config` is wrong, the broker or the topic cannot be reached, or an event was
            not delivered; the message then counts such events by the broker's reason.
    """
    started = time.monotonic()
    offsets: dict[int, tuple[int, int]] = {}
    failures: Counter[str] = Counter()
    trouble: deque[str] = deque(maxlen=3)
    sent = delivered = 0

    def report(error: KafkaError | None, message: Message) -> None:
        nonlocal delivered
        if error is not None:
            failures[error.str()] += 1
            return
        delivered += 1
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        first, last = offsets.get(partition, (offset, offset))
        offsets[partition] = (min(first, offset), max(last, offset))
        on_delivery()

    producer = _connected(config, topic, trouble)
    encode = msgspec.json.Encoder().encode
    for event in events if rate is None else _paced(events, rate, producer.poll):
        sent += 1
        key, value = event.vehicle_id.encode(), encode(event)
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                failures[error.args[0].str()] += 1
                break
        producer.poll(0)
        if failures:
            break
    producer.flush(DELIVERY_TIMEOUT_SECONDS)
    if delivered != sent:
        reasons = "; ".join(f"{count} times {reason}" for reason, count in failures.items())
        reasons = reasons or "; ".join(["no answer in time", *dict.fromkeys(trouble)])
        raise DeliveryError(f"{sent - delivered} of {sent} events were not delivered to topic {topic!r}: {reasons}")
    return Delivery(delivered, dict(sorted(offsets.items())), time.monotonic() - started)


def _connected(config: Mapping[str, Any], topic: str, trouble: deque[str]) -> Producer:
    """A producer that has seen `topic`; what its connections complain of later goes to `trouble`."""
    try:
        producer = Producer(
            {
                "log_level": 0,
                "message.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1000,
                "compression.type": "lz4",
                "linger.ms": 20,
                # A misspelt topic is an error, not a new topic.
                "allow.auto.create.topics": False,
                **config,
                "error_cb": lambda error: trouble.append(error.str()),
                "enable.idempotence": True,
                "acks": "all",
            }
        )
    except KafkaException as error:
        raise DeliveryError(f"the Kafka client refuses its settings: {error.args[0].str()}") from None
    servers, started = config.get("bootstrap.servers"), time.monotonic()
    while True:
        try:
            problem = producer.list_topics(topic, timeout=REQUEST_TIMEOUT_SECONDS).topics[topic].error
            if problem is None:
                return producer
            failure, patience = f"topic {topic!r} at {servers}: {problem.str()}", NEW_TOPIC_SECONDS
        except KafkaException as error:
            producer.poll(0)
            reasons = "; ".join(dict.fromkeys(trouble)) or error.args[0].str()
            failure, patience = f"no Kafka broker answers at {servers}: {reasons}", CONNECT_TIMEOUT_SECONDS
        if time.monotonic() - started > patience:
            raise DeliveryError(failure)
        producer.poll(0.1)


def _paced(events: Iterable[VehicleEvent], rate: float, wait: Callable[[float], object]) -> Iterator[VehicleEvent]:
    due = time.monotonic()
    for event in events:
        while (ahead := due - time.monotonic()) > 0:
            wait(min(ahead, 0.1))
        yield event
        due = max(due, time.monotonic() - CATCH_UP_SECONDS) + 1 / rate
