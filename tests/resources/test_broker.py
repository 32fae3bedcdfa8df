"""The embedded broker: one per folder, its data kept, its end no later than its command's. Each start takes seconds."""

import shutil
import signal

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from resources import jvm
from resources.broker import BrokerError, EmbeddedBroker
from resources.jvm import JavaError

# Serves the folder it is given and says where, until it is told to end or killed.
COMMAND = """
import sys
from pathlib import Path
from resources.broker import EmbeddedBroker
with EmbeddedBroker(Path(sys.argv[1])).serving("events") as address:
    print(address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder that the tests of this file use one after the other, as commands do."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def command(start, home):
    """Start a command that serves `home`; the process, and the address that it printed."""

    def run():
        process = start(COMMAND, home)
        address = process.stdout.readline().strip()
        assert address, process.stderr.read()
        return process, address

    return run


def write(address, value):
    producer = Producer({"bootstrap.servers": address})
    producer.produce("events", value, partition=0)
    assert producer.flush(30) == 0


def values(address):
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition("events", 0, 0)])
    found = []
    while (message := consumer.poll(30)) is not None and message.error() is None:
        found.append(message.value())
    consumer.close()
    return found


def test_where_nothing_ever_ran_nothing_runs_and_nothing_is_made(tmp_path):
    assert EmbeddedBroker(tmp_path / "home").running() is None
    assert not (tmp_path / "home").exists()


def test_data_are_kept_between_two_starts(home, broker, processes):
    with EmbeddedBroker(home).serving("events") as address:
        assert EmbeddedBroker(home).running() == address
        assert address != broker  # another folder's, at the same time
        topic = AdminClient({"bootstrap.servers": address}).list_topics("events", timeout=30).topics["events"]
        assert sorted(topic.partitions) == [0, 1, 2]
        write(address, b"first")
    assert EmbeddedBroker(home).running() is None
    with EmbeddedBroker(home).serving("events") as address:
        write(address, b"second")
        assert values(address) == [b"first", b"second"]
    assert processes(home) == []


def test_commands_share_a_broker_and_the_first_waits_for_the_others(home, command, processes):
    first, address = command()
    second = EmbeddedBroker(home)
    with second.serving("of-the-second") as shared:
        assert shared == address == second.running()
        assert "of-the-second" in AdminClient({"bootstrap.servers": shared}).list_topics(timeout=30).topics
        first.stdin.close()
        assert "Kafka stays up until the other commands that use it have ended" in first.stderr.readline()
        write(address, b"while the first waits")
        assert first.poll() is None
    assert first.wait(30) == 0
    assert processes(home) == []


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM], ids=lambda way: way.name)
def test_a_broker_ends_with_its_command(home, command, eventually, processes, way):
    process, _ = command()
    process.send_signal(way)
    assert process.wait(30) != 0
    assert EmbeddedBroker(home).running() is None
    eventually(lambda: not processes(home))


def test_after_a_sigkill_nothing_is_left_and_the_next_command_starts_at_once(home, command, eventually, processes):
    process, address = command()
    write(address, b"before the kill")
    process.kill()
    process.wait(30)
    assert EmbeddedBroker(home).running() is None
    with EmbeddedBroker(home).serving("events") as other:
        assert other != address
        assert values(other)[-1] == b"before the kill"
        assert sum(line.split()[0].endswith("/java") for line in processes(home)) == 1
    eventually(lambda: not processes(home))


def test_a_user_who_is_killed_is_not_waited_for(home, command):
    broker = EmbeddedBroker(home)
    with broker.serving("events"):
        user, _ = command()
        user.kill()
        user.wait(30)
    assert broker.running() is None


def test_broken_data_are_left_alone_and_the_error_shows_the_log(tmp_path, home, processes):
    broken = tmp_path / "home"
    shutil.copytree(home, broken)
    (broken / "data/meta.properties").write_text("version=1\nnode.id=none\n")
    with pytest.raises(
        BrokerError, match=rf"Kafka did not start; {broken}/broker\.log ends:\n(.*\n)*.*meta\.properties"
    ):
        EmbeddedBroker(broken).connect("events")
    assert (broken / "data/meta.properties").read_text() == "version=1\nnode.id=none\n"
    assert EmbeddedBroker(broken).running() is None
    assert processes(broken) == []


def test_a_data_folder_that_cannot_be_prepared_shows_the_log(tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(BrokerError, match=rf"could not prepare {tmp_path}/data; {tmp_path}/format\.log ends:\n.*"):
        EmbeddedBroker(tmp_path).connect("events")


def test_without_java_the_folder_stays_free_for_the_next_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    jvm.java.cache_clear()
    broker = EmbeddedBroker(tmp_path)
    for _ in range(2):
        with pytest.raises(JavaError, match="Install a JDK"):
            broker.connect("events")
        assert broker.running() is None


def test_a_topic_that_kafka_refuses_is_named(home):
    broker = EmbeddedBroker(home)
    with pytest.raises(BrokerError, match=r"'no topic!'.*invalid"):
        broker.connect("no topic!")
    assert broker.running() is None


HOLDER = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_data_that_another_kafka_uses_are_waited_for(tmp_path, start, monkeypatch):
    monkeypatch.setattr("resources.broker.START_TIMEOUT_SECONDS", 0.3)
    (tmp_path / "data").mkdir()
    holder = start(HOLDER, tmp_path / "data/.lock")  # as Kafka does, until it has ended
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(BrokerError, match=f"another Kafka broker uses {tmp_path}/data and does not end"):
        EmbeddedBroker(tmp_path).connect("events")
    assert EmbeddedBroker(tmp_path).running() is None
