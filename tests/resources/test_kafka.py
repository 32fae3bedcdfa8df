"""Reading a topic: every committed record, byte for byte, in bounded slices, up to an end that was taken before."""

import datetime as dt
import socket
import struct
import time
import uuid

import dagster as dg
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from resources.kafka import RECORD, KafkaResource, KafkaUnavailable, read_properties


@pytest.fixture
def admin(broker):
    return AdminClient({"bootstrap.servers": broker})


@pytest.fixture
def producer(broker):
    return Producer({"bootstrap.servers": broker})


@pytest.fixture
def transactions(broker):
    """A producer whose records count once a transaction is committed."""
    transactional = Producer({"bootstrap.servers": broker, "transactional.id": str(uuid.uuid4())})
    transactional.init_transactions(30)
    return transactional


@pytest.fixture
def configure(admin, topic):
    """Change a setting of the topic."""

    def change(name, value):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(30)

    return change


def slices(kafka, state=None):
    state = state or kafka.state()
    start = {partition: low for partition, (low, _) in state.watermarks.items()}
    return list(kafka.read(start, ends(state)))


def ends(state):
    return {partition: high for partition, (_, high) in state.watermarks.items()}


def records(kafka):
    return pa.concat_tables([RECORD.empty_table(), *(taken.records for taken in slices(kafka))])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"car-1", b'{"type": "car"}'),
        (None, b"without key"),
        (b"", b""),
        (b"tombstone", None),
        (None, None),
        (b"\xff\x00\xfe", b"\x80\x00 not UTF-8 \xc3"),
        (b"large", bytes(range(256)) * 3600),
    ],
    ids=["plain", "no key", "empty", "tombstone", "nothing", "binary", "900 KB"],
)
def test_a_record_comes_back_byte_for_byte(kafka, send, topic, key, value):
    send((key, value, None), partition=2)
    found = records(kafka)
    assert found.schema == RECORD
    (record,) = found.to_pylist()
    assert (record["topic"], record["partition"], record["offset"]) == (topic, 2, 0)
    assert (record["key"], record["value"], record["headers"]) == (key, value, None)


@pytest.mark.parametrize(
    "headers",
    [
        [("trace", b"1")],
        [("same", b"1"), ("other", b"x"), ("same", b"2")],
        [("null", None), ("empty", b""), ("binary", b"\xff\x00")],
        [("", b"no name"), ("Fahrräder", b"UTF-8")],
    ],
    ids=["one", "repeated key", "null value", "any name"],
)
def test_headers_come_back_in_order(kafka, send, headers):
    send((None, b"x", headers), (None, b"y", None))
    first, second = records(kafka)["headers"].to_pylist()
    assert [(header["key"], header["value"]) for header in first] == headers
    assert second is None


def test_a_header_that_is_not_utf_8_costs_the_headers_and_not_the_record(kafka, send, broker, topic, caplog):
    send(b"before")
    produce_by_hand(broker, topic, b"with it", [(b"good", b"1"), (b"\xff\xfe", b"2")])
    send(b"after")
    found = records(kafka)
    assert found["value"].to_pylist() == [b"before", b"with it", b"after"]
    assert found["headers"].to_pylist() == [None, [{"key": None, "value": None}], None]
    assert f"The headers of {topic} partition 0 offset 1 cannot be read" in caplog.text


def utc(*when):
    return dt.datetime(*when, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("milliseconds", "time"),
    [
        (1_767_268_800_123, utc(2026, 1, 1, 12, 0, 0, 123_000)),
        (1, utc(1970, 1, 1, 0, 0, 0, 1_000)),
        (-2, utc(1969, 12, 31, 23, 59, 59, 998_000)),
        (-62_135_596_800_000, utc(1, 1, 1)),
        (253_402_300_799_999, utc(9999, 12, 31, 23, 59, 59, 999_000)),
    ],
    ids=["today", "very old", "before 1970", "the first", "the last"],
)
def test_a_timestamp_is_kept_to_the_millisecond(kafka, producer, topic, configure, milliseconds, time):
    configure("message.timestamp.after.max.ms", str(2**63 - 1))
    producer.produce(topic, b"x", partition=0, timestamp=milliseconds)
    assert producer.flush(30) == 0
    (record,) = records(kafka).to_pylist()
    assert (record["timestamp"], record["timestamp_type"]) == (time, "CreateTime")


@pytest.mark.parametrize("milliseconds", [-62_135_596_800_001, 253_402_300_800_000, 2**63 - 1, -(2**62)])
def test_a_timestamp_outside_the_years_1_to_9999_is_null_and_the_record_kept(
    kafka, producer, topic, configure, milliseconds
):
    configure("message.timestamp.after.max.ms", str(2**63 - 1))
    producer.produce(topic, b"x", partition=0, timestamp=milliseconds)
    assert producer.flush(30) == 0
    (record,) = records(kafka).to_pylist()
    assert (record["value"], record["timestamp"], record["timestamp_type"]) == (b"x", None, "CreateTime")


def test_a_record_without_timestamp_has_none(kafka, broker, topic):
    produce_by_hand(broker, topic, b"x", [], milliseconds=-1)
    (record,) = records(kafka).to_pylist()
    assert (record["timestamp"], record["timestamp_type"]) == (None, None)


def test_the_brokers_own_timestamp_is_told_apart(kafka, producer, topic, configure):
    configure("message.timestamp.type", "LogAppendTime")
    producer.produce(topic, b"x", partition=0, timestamp=1)
    assert producer.flush(30) == 0
    (record,) = records(kafka).to_pylist()
    assert record["timestamp_type"] == "LogAppendTime"
    assert abs(record["timestamp"] - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)


def test_slices_are_bounded_by_records_and_lead_from_the_start_to_the_end(kafka, send):
    for partition in range(3):
        send(*(b"%d" % number for number in range(100)), partition=partition)
    small = kafka.model_copy(update={"slice_records": 70})
    state = small.state()
    taken = slices(small, state)
    assert all(0 < part.records.num_rows <= 70 for part in taken)
    assert taken[-1].positions == ends(state) == {0: 100, 1: 100, 2: 100}
    reached = {0: 0, 1: 0, 2: 0}
    for part in taken:
        for row in part.records.to_pylist():
            assert row["offset"] == reached[row["partition"]]  # in order, none missing, none twice
            reached[row["partition"]] += 1
        assert part.positions == reached


def test_slices_are_bounded_by_bytes(kafka, send):
    for partition in range(3):
        send(*([bytes(300_000)] * 20), partition=partition)
    small = kafka.model_copy(update={"slice_bytes": 1_000_000})
    taken = slices(small)
    assert sum(part.records.num_rows for part in taken) == 60
    # What is fetched already comes along: as much again, and a fetch for each partition.
    assert max(part.records.nbytes for part in taken) < 5_000_000
    assert len(taken) > 4


def test_a_record_larger_than_a_slice_is_a_slice(kafka, send):
    send(bytes(900_000), b"small")
    taken = slices(kafka.model_copy(update={"slice_bytes": 10_000}))
    assert [len(value) for part in taken for value in part.records["value"].to_pylist()] == [900_000, 5]


def test_where_nothing_is_new_there_is_no_slice(kafka, send):
    assert slices(kafka) == []
    send(b"x")
    state = kafka.state()
    assert list(kafka.read(ends(state), ends(state))) == []


def test_reading_starts_where_it_is_told(kafka, send):
    send(b"0", b"1", b"2")
    send(b"other", partition=1)
    (taken,) = kafka.read({0: 2, 1: 1, 2: 0}, {0: 3, 1: 1, 2: 0})
    assert taken.records["value"].to_pylist() == [b"2"]
    assert taken.positions == {0: 3}


def test_records_that_came_after_the_end_was_taken_are_not_read(kafka, send):
    send(b"before")
    state = kafka.state()
    send(b"after")
    send(b"after", partition=1)
    (taken,) = slices(kafka, state)
    assert taken.records["value"].to_pylist() == [b"before"]
    assert taken.positions == {0: 1}


def test_aborted_transactions_never_appear_and_commits_leave_gaps(kafka, transactions, topic):
    for value, finish in [
        (b"kept", transactions.commit_transaction),
        (b"aborted", transactions.abort_transaction),
        (b"kept too", transactions.commit_transaction),
    ]:
        transactions.begin_transaction()
        transactions.produce(topic, value, partition=0)
        transactions.produce(topic, value, partition=1)
        transactions.flush(30)
        finish(30)
    state = kafka.state()
    (taken,) = slices(kafka, state)
    found = taken.records.filter(pa.compute.equal(taken.records["partition"], 0))
    assert found["value"].to_pylist() == [b"kept", b"kept too"]
    assert found["offset"].to_pylist() == [0, 4]
    # The last offset is the commit's own, which no reader sees; the position is past it all the same.
    assert taken.positions == {0: 6, 1: 6} == {p: end for p, end in ends(state).items() if end}


def test_a_topic_of_nothing_but_aborted_records_is_read_to_its_end(kafka, transactions, topic):
    transactions.begin_transaction()
    transactions.produce(topic, b"aborted", partition=0)
    transactions.flush(30)
    transactions.abort_transaction(30)
    began = time.monotonic()
    (taken,) = slices(kafka)
    assert taken.records.num_rows == 0
    assert taken.positions == {0: 2}
    assert time.monotonic() - began < 20


def test_an_open_transaction_ends_the_topic_before_it(kafka, transactions, topic, send):
    send(b"before")
    transactions.begin_transaction()
    transactions.produce(topic, b"open", partition=0)
    transactions.flush(30)
    send(b"after")
    assert kafka.state().watermarks[0] == (0, 1)
    assert records(kafka)["value"].to_pylist() == [b"before"]
    transactions.commit_transaction(30)
    assert kafka.state().watermarks[0] == (0, 4)
    assert records(kafka)["value"].to_pylist() == [b"before", b"open", b"after"]


def test_the_consumer_group_learns_the_positions_after_each_slice_was_taken(kafka, send, admin, topic):
    send(b"0", b"1", b"2")
    send(b"0", partition=1)
    assert len(slices(kafka)) == 1
    request = ConsumerGroupTopicPartitions(kafka.group, [TopicPartition(topic, number) for number in range(3)])
    group = admin.list_consumer_group_offsets([request])[kafka.group].result(30)
    assert [place.offset for place in group.topic_partitions] == [3, 1, -1001]


def test_a_group_that_others_use_keeps_nobody_from_reading(kafka, send, broker, topic, caplog, eventually):
    send(b"x")
    member = Consumer({"bootstrap.servers": broker, "group.id": kafka.group})
    member.subscribe([topic])
    eventually(lambda: member.poll(0.1) is None and member.assignment())
    assert records(kafka)["value"].to_pylist() == [b"x"]
    assert f"Consumer group '{kafka.group}' was not told its positions" in caplog.text
    member.close()


def test_a_topic_made_anew_has_another_id(kafka, send, admin, topic, eventually):
    send(b"x")
    first = kafka.state()
    assert first.topic_id == kafka.state().topic_id
    admin.delete_topics([topic])[topic].result(30)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics)
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    again = kafka.state()
    assert again.topic_id != first.topic_id
    assert again.watermarks == {0: (0, 0), 1: (0, 0), 2: (0, 0)}


def test_records_that_retention_took_are_no_longer_in_the_topic(kafka, send, admin, topic):
    send(b"0", b"1", b"2")
    before = kafka.state()
    admin.delete_records([TopicPartition(topic, 0, 2)])[TopicPartition(topic, 0)].result(30)
    assert kafka.state().watermarks[0] == (2, 3)
    assert records(kafka)["offset"].to_pylist() == [2]
    with pytest.raises(KafkaUnavailable, match=r"partition 0 from offset 0: .*out of range"):
        slices(kafka, before)


def fails_soon(kafka, text):
    began = time.monotonic()
    with pytest.raises(KafkaUnavailable, match=text):
        kafka.state()
    assert time.monotonic() - began < 15


def test_a_topic_that_does_not_exist_is_named_with_its_setting_and_how_to_make_it(kafka, broker):
    missing = kafka.model_copy(update={"topic": "nowhere"})
    fails_soon(
        missing, rf"'nowhere' \(KAFKA_TOPIC\) does not exist.*--bootstrap-server {broker} --create --topic nowhe"
    )


def test_a_name_that_no_topic_can_have_names_its_setting(kafka):
    fails_soon(kafka.model_copy(update={"topic": "no topic!"}), r"'no topic!' \(KAFKA_TOPIC\): .*[Ii]nvalid")


def test_a_broker_that_does_not_answer_is_named_with_its_setting(kafka):
    away = kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    fails_soon(away, r"127\.0\.0\.1:1 \(KAFKA_BOOTSTRAP_SERVERS\).*Connection refused")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"security.protocol\n", "setting 1, 'security.protocol', is not key=value"),
        (b"no.such.setting=1\n", 'No such configuration property: "no.such.setting"'),
        (b"security.protocol=sasl_ssl\nsasl.mechanisms=PLAIN\n", "sasl.username"),
        (b"sasl.password=\xff\n", "cannot be read: .*utf-8"),
    ],
    ids=["no =", "unknown", "incomplete", "not UTF-8"],
)
def test_a_bad_properties_file_is_named_with_its_setting(kafka, tmp_path, content, text):
    file = tmp_path / "client.properties"
    file.write_bytes(content)
    fails_soon(
        kafka.model_copy(update={"properties_file": str(file)}), rf"(?s){file} \(KAFKA_PROPERTIES_FILE\).*{text}"
    )


def test_a_missing_properties_file_is_named_with_its_setting(kafka):
    fails_soon(
        kafka.model_copy(update={"properties_file": "/nowhere"}), r"/nowhere \(KAFKA_PROPERTIES_FILE\) cannot be"
    )


def test_properties_are_read_as_kcat_reads_them(tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("# for the cluster\n\n sasl.username = me \nsasl.password=a=b#c\n")
    assert read_properties(file) == {"sasl.username": "me", "sasl.password": "a=b#c"}


def test_properties_reach_every_client(kafka, tmp_path, send):
    file = tmp_path / "client.properties"
    file.write_text("client.id=lakehouse\n")
    configured = kafka.model_copy(update={"properties_file": str(file)})
    assert configured.client_config()["client.id"] == "lakehouse"
    send(b"x")
    assert records(configured)["value"].to_pylist() == [b"x"]


def test_without_bootstrap_servers_there_is_the_embedded_broker(tmp_path, processes):
    kafka = KafkaResource(topic="events", group="group", broker_home=str(tmp_path))
    assert not kafka.available()  # asking starts nothing
    try:
        assert kafka.state().watermarks == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
        assert kafka.available()
    finally:
        kafka.teardown_after_execution(dg.build_init_resource_context())
    assert not kafka.available()
    assert processes(tmp_path) == []


def produce_by_hand(address, topic, value, headers, milliseconds=1):
    """Send one record to partition 0 as the protocol says (produce request v3, record batch v2), but whatever bytes."""
    record = b"\0" + varint(0) + varint(0) + varint(-1) + sized(value)
    record += varint(len(headers)) + b"".join(sized(key) + sized(value) for key, value in headers)
    batch = struct.pack(">hiqqqhii", 0, 0, milliseconds, milliseconds, -1, -1, -1, 1) + sized(record)
    batch = struct.pack(">qiib", 0, len(batch) + 9, -1, 2) + struct.pack(">I", crc32c(batch)) + batch
    name = struct.pack(">h", len(topic)) + topic.encode()
    produce = struct.pack(">hhi", -1, 1, 30_000) + struct.pack(">i", 1) + name + struct.pack(">iii", 1, 0, len(batch))
    request = struct.pack(">hhih", 0, 3, 1, -1) + produce + batch
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(4096)
    # Length, correlation id, number of topics, name, number of partitions, partition; then the error code.
    (error,) = struct.unpack_from(">h", answer, 12 + len(name) + 8)
    assert error == 0, answer


def varint(number):
    zigzag = number * 2 if number >= 0 else -number * 2 - 1
    encoded = bytearray()
    while zigzag > 127:
        encoded.append(zigzag & 127 | 128)
        zigzag >>= 7
    return bytes([*encoded, zigzag])


def sized(content):
    return varint(len(content)) + content


def crc32c(content):
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF
