"""Reading a Kafka topic: where it begins and ends, and bounded slices of its records as Arrow tables."""

import operator
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from pydantic import PrivateAttr

from resources.broker import EmbeddedBroker

REQUEST_TIMEOUT_SECONDS = 10
STALL_TIMEOUT_SECONDS = 60
BATCH_RECORDS = 10_000
MAX_FETCH_BYTES = 4 * 1024 * 1024
MAX_QUEUED_BYTES = 32 * 1024 * 1024
NO_TIMESTAMP = -1
# The years 1 to 9999 in milliseconds since 1970: what the time types of Spark, Delta and Python hold.
FIRST_MILLISECOND, LAST_MILLISECOND = -62_135_596_800_000, 253_402_300_799_999
# What a broker answers just after a topic was made, and while a partition changes its leader.
UNSETTLED = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
)
SETTLING_SECONDS = 5
TIMESTAMP_TYPES = {TIMESTAMP_CREATE_TIME: "CreateTime", TIMESTAMP_LOG_APPEND_TIME: "LogAppendTime"}

# A header whose key is not UTF-8, which Kafka's protocol forbids and brokers do not check, is null in both.
HEADERS = pa.list_(pa.struct([pa.field("key", pa.string()), pa.field("value", pa.binary())]))
# A record as the broker gives it (https://kafka.apache.org/documentation/#record), with where it lies.
RECORD = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("timestamp", pa.timestamp("us", "UTC")),
        pa.field("timestamp_type", pa.string()),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", HEADERS),
    ]
)


class KafkaUnavailable(Exception):
    """The broker or the topic cannot be used; the message names the setting to look at."""


@dataclass(frozen=True)
class TopicState:
    """A topic at one moment: its id, and per partition the first offset kept and the offset after the last."""

    topic_id: str
    watermarks: Mapping[int, tuple[int, int]]


@dataclass(frozen=True)
class Slice:
    """Some records of a topic (schema `RECORD`), and per partition the offset that comes next."""

    records: pa.Table
    positions: Mapping[int, int]


class KafkaResource(dg.ConfigurableResource[Any]):
    """One topic of a Kafka cluster, or of the embedded broker where no bootstrap servers are given.

    Reading is `read_committed` and by position: no group membership, so no rebalance and no commit decides what
    is read. `slice_records` and `slice_bytes` bound the memory that reading takes.
    """

    bootstrap_servers: str | None = None
    topic: str
    group: str
    properties_file: str | None = None
    broker_home: str
    slice_records: int = 250_000
    slice_bytes: int = 64 * 1024 * 1024

    _broker: EmbeddedBroker | None = PrivateAttr(default=None)
    _address: str | None = PrivateAttr(default=None)
    _trouble: deque[str] = PrivateAttr(default_factory=lambda: deque(maxlen=3))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Stop the embedded broker, if this resource started it."""
        if self._broker is not None:
            self._broker.close()
            self._broker = None

    def available(self) -> bool:
        """Whether there is a broker to ask without starting one."""
        return self.bootstrap_servers is not None or EmbeddedBroker(Path(self.broker_home)).running() is not None

    def client_config(self) -> dict[str, Any]:
        """Settings for any librdkafka client of this cluster; starts the embedded broker if it is needed.

        Raises:
            KafkaUnavailable: the properties file cannot be read.
            BrokerError, JavaError: the embedded broker does not start.
        """
        if self.bootstrap_servers is None and self._broker is None:
            broker = EmbeddedBroker(Path(self.broker_home))
            self._address = broker.connect(self.topic)
            self._broker = broker
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers or self._address,
            "log_level": 0,
            "error_cb": lambda error: self._trouble.append(error.str()),
        }
        if self.properties_file is not None:
            config |= read_properties(Path(self.properties_file))
        return config

    def state(self) -> TopicState:
        """The topic's id and watermarks now; the upper ones are of committed records.

        Raises:
            KafkaUnavailable: no broker answers, or the topic does not exist.
        """
        with self._explained():
            admin = AdminClient(self.client_config())
            deadline = time.monotonic() + SETTLING_SECONDS
            while True:
                try:
                    return self._ask(admin)
                except KafkaException as error:
                    if error.args[0].code() not in UNSETTLED or time.monotonic() > deadline:
                        admin.poll(0)  # what the client met with comes to `error_cb` now
                        raise
                time.sleep(0.1)

    def _ask(self, admin: AdminClient) -> TopicState:
        described = admin.describe_topics(TopicCollection([self.topic]), request_timeout=REQUEST_TIMEOUT_SECONDS)
        topic = described[self.topic].result()
        partitions = [TopicPartition(self.topic, partition.id) for partition in topic.partitions]
        low, high = (
            {
                place.partition: future.result().offset
                for place, future in admin.list_offsets(
                    dict.fromkeys(partitions, spec),
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=REQUEST_TIMEOUT_SECONDS,
                ).items()
            }
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
        return TopicState(str(topic.topic_id), {number: (low[number], high[number]) for number in sorted(low)})

    def read(self, start: Mapping[int, int], end: Mapping[int, int]) -> Iterator[Slice]:
        """Yield every committed record from `start` up to `end` (exclusive) of each partition, in slices.

        The last slice's positions are `end`, also where the topic has only transaction markers there. After a
        slice was taken, its positions go to the consumer group, as a copy for tools that show lag.

        Raises:
            KafkaUnavailable: the broker stopped answering.
        """
        positions = {partition: offset for partition, offset in start.items() if offset < end[partition]}
        if not positions:
            return
        with self._explained():
            consumer = Consumer(
                {
                    **self.client_config(),
                    "group.id": self.group,
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "error",
                    # The default of a second leaves a reader asleep that is faster than the network.
                    "fetch.queue.backoff.ms": 10,
                    "fetch.wait.max.ms": 100,
                    "fetch.message.max.bytes": min(MAX_FETCH_BYTES, self.slice_bytes),
                    "queued.max.messages.kbytes": max(min(MAX_QUEUED_BYTES, self.slice_bytes) // 1024, 1),
                }
            )
            try:
                consumer.assign([TopicPartition(self.topic, p, offset) for p, offset in positions.items()])
                for taken in self._slices(consumer, positions, end):
                    yield taken
                    self._share_positions(consumer, taken.positions)
            finally:
                consumer.close()

    def _slices(self, consumer: Consumer, positions: dict[int, int], end: Mapping[int, int]) -> Iterator[Slice]:
        batches: list[pa.RecordBatch] = []
        records = size = 0
        heard = time.monotonic()
        unfinished = set(positions)
        while unfinished:
            # Without waiting, no more comes than librdkafka has queued: its bound in bytes is then ours.
            most = min(BATCH_RECORDS, self.slice_records - records)
            messages = consumer.consume(most, 0) or consumer.consume(1, 0.5)
            if not messages:
                if time.monotonic() - heard > STALL_TIMEOUT_SECONDS:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no records for {STALL_TIMEOUT_SECONDS} s"))
                continue
            heard = time.monotonic()
            wanted = []
            for message in messages:
                partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is None:
                    positions[partition] = offset + 1
                    if offset < end[partition]:
                        wanted.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    positions[partition] = max(offset, positions[partition])
                else:
                    where = f"partition {partition} from offset {positions[partition]}"
                    raise KafkaException(KafkaError(error.code(), f"{where}: {error.str()}"))
            done = {partition for partition in unfinished if positions[partition] >= end[partition]}
            if done:
                consumer.pause([TopicPartition(self.topic, partition) for partition in done])
                positions |= {partition: end[partition] for partition in done}
                unfinished -= done
            if wanted:
                batch = _arrow(wanted)
                batches.append(batch)
                records, size = records + batch.num_rows, size + batch.nbytes
            if records >= self.slice_records or size >= self.slice_bytes or not unfinished:
                yield Slice(pa.Table.from_batches(batches, RECORD), dict(positions))
                batches, records, size = [], 0, 0

    def _share_positions(self, consumer: Consumer, positions: Mapping[int, int]) -> None:
        try:
            consumer.commit(
                offsets=[TopicPartition(self.topic, partition, offset) for partition, offset in positions.items()],
                asynchronous=False,
            )
        except KafkaException as error:
            dg.get_dagster_logger().warning(
                f"Consumer group {self.group!r} was not told its positions, so tools show too much lag: {error}"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaUnavailable(
                    f"Topic {self.topic!r} (KAFKA_TOPIC) does not exist on {self._place()}. Create it, for instance: "
                    f"kafka-topics.sh --bootstrap-server {self.bootstrap_servers or self._address} --create "
                    f"--topic {self.topic}"
                ) from None
            said = "; ".join(dict.fromkeys([*self._trouble, cause.str()]))
            raise KafkaUnavailable(
                f"Kafka at {self._place()} does not give us topic {self.topic!r} (KAFKA_TOPIC): {said}"
            ) from None

    def _place(self) -> str:
        place = f"{self.bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS)"
        if self.bootstrap_servers is None:
            place = f"the embedded broker in {self.broker_home}, whose log is broker.log,"
        return place + (f" with {self.properties_file} (KAFKA_PROPERTIES_FILE)" if self.properties_file else "")


def read_properties(path: Path) -> dict[str, str]:
    """The `key=value` lines of a librdkafka properties file, as `kcat -F` reads them; `#` begins a comment line.

    Raises:
        KafkaUnavailable: the file cannot be read or a line has no `=`.
    """
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise KafkaUnavailable(f"{path} (KAFKA_PROPERTIES_FILE) cannot be read: {error}") from None
    settings = [line.partition("=") for line in lines if line and not line.startswith("#")]
    for number, (key, separator, _) in enumerate(settings, start=1):
        if not separator:
            raise KafkaUnavailable(f"{path} (KAFKA_PROPERTIES_FILE): setting {number}, {key!r}, is not key=value")
    return {key.strip(): value.strip() for key, _, value in settings}


def _arrow(messages: list[Message]) -> pa.RecordBatch:
    stamps = [message.timestamp() for message in messages]
    types = [None if time == NO_TIMESTAMP else TIMESTAMP_TYPES.get(kind) for kind, time in stamps]
    # A producer's clock can claim any 64 bits.
    times = [
        time if kind is not None and FIRST_MILLISECOND <= time <= LAST_MILLISECOND else None
        for kind, (_, time) in zip(types, stamps, strict=True)
    ]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([message.topic() for message in messages], pa.string()),
            pa.array([message.partition() for message in messages], pa.int32()),
            pa.array([message.offset() for message in messages], pa.int64()),
            pc.multiply(pa.array(times, pa.int64()), 1000).cast(pa.timestamp("us", "UTC")),
            pa.array(types, pa.string()),
            pa.array([message.key() for message in messages], pa.binary()),
            pa.array([message.value() for message in messages], pa.binary()),
            pa.array([_headers(message) for message in messages], HEADERS),
        ],
        schema=RECORD,
    )


_call_headers = operator.methodcaller("headers")


def _headers(message: Message) -> list[dict[str, str | bytes | None]] | None:
    # On a key that is not UTF-8, confluent-kafka sets an exception and returns a broken list all the same. Called as
    # a method, which the interpreter may shorten, the list can come through and end the process; called so, never.
    try:
        pairs: list[tuple[str, bytes | None]] | None = _call_headers(message)
    except SystemError:
        dg.get_dagster_logger().warning(
            f"The headers of {message.topic()} partition {message.partition()} offset {message.offset()} cannot be "
            "read, as one of their keys is not UTF-8; all else of the record is kept"
        )
        return [{"key": None, "value": None}]
    return None if pairs is None else [{"key": key, "value": value} for key, value in pairs]
