"""Sending events to a Kafka topic, every delivery confirmed."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from producer.events import VehicleEvent

CONNECT_TIMEOUT_SECONDS = 10
DELIVERY_TIMEOUT_SECONDS = 60


class DeliveryError(Exception):
    """The broker did not answer, or did not confirm every event."""


@dataclass(frozen=True)
class Delivery:
    """What the broker confirmed: how many events, and per partition the offsets of the first and the last."""

    delivered: int
    offsets: Mapping[int, tuple[int, int]]
    seconds: float


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
        DeliveryError: the broker or the topic cannot be reached, or an event was not delivered;
            the message counts such events by the broker's reason.
    """
    started = time.monotonic()
    offsets: dict[int, tuple[int, int]] = {}
    failures: Counter[str] = Counter()
    trouble: deque[str] = deque(maxlen=1)
    delivered = 0

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

    producer = Producer(
        {
            "log_level": 0,
            "error_cb": lambda error: trouble.append(error.str()),
            "message.timeout.ms": DELIVERY_TIMEOUT_SECONDS * 1000,
            "compression.type": "lz4",
            "linger.ms": 20,
            **config,
            "enable.idempotence": True,
            "acks": "all",
        }
    )
    try:
        problem = producer.list_topics(topic, timeout=CONNECT_TIMEOUT_SECONDS).topics[topic].error
    except KafkaException as error:
        producer.poll(0)
        raise DeliveryError(f"the broker does not answer: {' '.join(trouble) or error.args[0].str()}") from None
    if problem is not None:
        raise DeliveryError(f"topic {topic!r}: {problem.str()}")
    encode = msgspec.json.Encoder().encode
    sent = 0
    for sent, event in enumerate(events, start=1):
        if rate is not None:
            ahead = (sent - 1) / rate - (time.monotonic() - started)
            while ahead > 0:
                producer.poll(min(ahead, 0.1))
                ahead = (sent - 1) / rate - (time.monotonic() - started)
        while True:
            try:
                producer.produce(topic, key=event.vehicle_id.encode(), value=encode(event), on_delivery=report)
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
        reasons = "; ".join(f"{count} times {reason}" for reason, count in failures.items()) or "no answer in time"
        raise DeliveryError(f"{sent - delivered} of {sent} events were not delivered to topic {topic!r}: {reasons}")
    return Delivery(delivered, dict(sorted(offsets.items())), time.monotonic() - started)
