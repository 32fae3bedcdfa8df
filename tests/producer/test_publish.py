"""Publishing, on a real broker: what lands, what is confirmed, and that nothing undelivered passes for delivered."""

import datetime as dt
import json
import uuid
from collections import Counter

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from producer import publish as publishing
from producer.generator import generate
from producer.publish import DeliveryError, publish

START = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def events(count, seed="publish"):
    return list(generate(count, seed, START))


def test_every_event_lands_with_its_key_and_its_json_and_no_headers(broker, topic, landed):
    sent = events(30)
    publish(sent, {"bootstrap.servers": broker}, topic)
    records = {message.value(): message for message in landed()}
    assert set(records) == {msgspec.json.encode(event) for event in sent}
    for value, message in records.items():
        assert message.key().decode() == json.loads(value)["vehicle_id"]
        assert message.headers() is None


def test_the_delivery_says_where_the_events_are(broker, topic, landed):
    delivery = publish(events(300), {"bootstrap.servers": broker}, topic)
    per_partition = Counter(message.partition() for message in landed())
    assert delivery.delivered == 300
    assert delivery.offsets == {partition: (0, count - 1) for partition, count in per_partition.items()}
    assert list(delivery.offsets) == sorted(delivery.offsets)
    assert delivery.seconds > 0


def test_offsets_are_of_this_delivery_alone(broker, topic):
    first, second = (publish(events(300, seed), {"bootstrap.servers": broker}, topic) for seed in "ab")
    assert all(second.offsets[partition][0] == last + 1 for partition, (_, last) in first.offsets.items())


def test_the_events_of_a_vehicle_stay_in_order(broker, topic, landed):
    minutes = [START + dt.timedelta(minutes=number) for number in range(100)]
    sent = [msgspec.structs.replace(events(1)[0], event_time=minute) for minute in minutes]
    publish(sent, {"bootstrap.servers": broker}, topic)
    assert [message.value() for message in landed()] == [msgspec.json.encode(event) for event in sent]


def test_no_events_is_a_delivery_of_none(broker, topic):
    delivery = publish([], {"bootstrap.servers": broker}, topic)
    assert (delivery.delivered, delivery.offsets) == (0, {})


def test_each_confirmation_is_reported(broker, topic):
    confirmed = []
    publish(events(30), {"bootstrap.servers": broker}, topic, on_delivery=lambda: confirmed.append(1))
    assert len(confirmed) == 30


def test_settings_cannot_weaken_the_promise(broker, topic):
    weak = {"bootstrap.servers": broker, "acks": "0", "enable.idempotence": "false"}
    # Without acknowledgements no offset would be known.
    offsets = publish(events(30), weak, topic).offsets
    assert sum(last - first + 1 for first, last in offsets.values()) == 30


def test_a_full_queue_is_waited_for(broker, topic):
    small = {"bootstrap.servers": broker, "queue.buffering.max.messages": 10}
    assert publish(events(1000), small, topic).delivered == 1000


def test_the_rate_bounds_sending(broker, topic, landed):
    publish(events(6), {"bootstrap.servers": broker}, topic, rate=10)
    milliseconds = sorted(message.timestamp()[1] for message in landed())
    assert milliseconds[-1] - milliseconds[0] >= 450


def test_a_rate_is_no_debt_when_the_source_is_slow(broker, topic, landed):
    def late():
        # Each takes its time, by the record before it being there to be read.
        for number, event in enumerate(events(6)):
            if number == 3:
                while len(landed()) < 3:
                    pass
            yield event

    publish(late(), {"bootstrap.servers": broker}, topic, rate=10)
    milliseconds = sorted(message.timestamp()[1] for message in landed())
    assert milliseconds[-1] - milliseconds[3] >= 140


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (1_000_000, "1 times Unable to produce message: Broker: Message size too large"),
        (10_000_000, "1 times Broker: Message size too large"),
    ],
    ids=["for the client", "for the broker"],
)
def test_an_event_that_is_too_large_raises(broker, topic, limit, reason):
    huge = msgspec.structs.replace(events(1)[0], vehicle_id="x" * 2_000_000)
    with pytest.raises(DeliveryError) as raised:
        publish([huge], {"bootstrap.servers": broker, "compression.type": "none", "message.max.bytes": limit}, topic)
    assert str(raised.value) == f"1 of 1 events were not delivered to topic {topic!r}: {reason}"


def test_sending_stops_at_the_first_failure(broker, topic, landed):
    first, second, third = events(3)
    huge = msgspec.structs.replace(second, vehicle_id="x" * 2_000_000)
    with pytest.raises(DeliveryError, match="1 of 2 events were not delivered"):
        publish([first, huge, third], {"bootstrap.servers": broker}, topic)
    assert [message.value() for message in landed()] == [msgspec.json.encode(first)]


def test_a_missing_topic_raises_and_is_not_made(broker):
    with pytest.raises(DeliveryError) as raised:
        publish(events(1), {"bootstrap.servers": broker}, "missing")
    assert str(raised.value) == f"topic 'missing' at {broker}: Broker: Unknown topic or partition"
    assert "missing" not in AdminClient({"bootstrap.servers": broker}).list_topics(timeout=30).topics


def test_a_topic_that_is_being_made_is_waited_for(broker):
    name = f"test-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": broker})
    created = []

    def create(_statistics: str) -> None:
        # A producer serves this callback while it waits, so not before it was told that there is no such topic.
        if not created:
            created.extend(admin.create_topics([NewTopic(name, 3, 1)]).values())

    config = {"bootstrap.servers": broker, "statistics.interval.ms": 10, "stats_cb": create}
    assert publish(events(30), config, name).delivered == 30
    assert created


def test_a_broker_that_cannot_be_reached_raises(monkeypatch):
    monkeypatch.setattr(publishing, "CONNECT_TIMEOUT_SECONDS", 0.5)
    with pytest.raises(DeliveryError, match=r"no Kafka broker answers at 127\.0\.0\.1:1: .*Connection refused"):
        publish(events(1), {"bootstrap.servers": "127.0.0.1:1"}, "any")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"lingers": "5"}, 'No such configuration property: "lingers"'),
        ({"max.in.flight": 100}, "`max.in.flight` must be set <= 5 when `enable.idempotence` is true"),
    ],
)
def test_a_wrong_setting_raises(broker, topic, setting, complaint):
    with pytest.raises(DeliveryError, match=f"the Kafka client refuses its settings: .*{complaint}"):
        publish(events(1), {"bootstrap.servers": broker, **setting}, topic)


def test_what_the_source_raises_is_raised(broker, topic):
    def broken():
        yield from events(1)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        publish(broken(), {"bootstrap.servers": broker}, topic)
