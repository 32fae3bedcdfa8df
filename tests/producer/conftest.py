"""What the producer's tests need: a look at what landed in the topic, GBFS files, a web server, a clean environment."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches the command, and no proxy comes between it and the test's web server."""
    for name in ("KAFKA_TOPIC", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PROPERTIES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def landed(broker: str, topic: str) -> Callable[[], list[Message]]:
    """Read every record of the topic, partition by partition, in the order of its offsets."""

    def read() -> list[Message]:
        consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": "unused",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        try:
            partitions = set(consumer.list_topics(topic, 30).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            messages = []
            while partitions:
                message = consumer.poll(30)
                assert message is not None, f"no answer about partitions {partitions}"
                if message.error() is None:
                    messages.append(message)
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    partitions.discard(message.partition())
            return sorted(messages, key=lambda message: (message.partition(), message.offset()))
        finally:
            consumer.close()

    return read


@pytest.fixture
def feeds() -> Path:
    """A folder per GBFS version, with feeds of invented operators that deviate as feeds in the wild do."""
    return Path(__file__).with_name("feeds")


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that serves what the test puts into its `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
