"""An Apache Kafka broker of our own, for when no other is named: real, kept between commands, never left behind."""

import fcntl
import logging
import os
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from resources.jvm import ChildProcess, free_port, jars, java

KAFKA_JARS = ("org.apache.kafka:kafka_2.13:4.3.1", "org.slf4j:slf4j-simple:1.7.36")
PARTITIONS = 3
START_TIMEOUT_SECONDS = 60
# A broker for one laptop: small, quick to start, and quiet.
JVM_FLAGS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")

log = logging.getLogger(__name__)


class BrokerError(Exception):
    """The embedded broker did not start; the message names its log."""


class EmbeddedBroker:
    """One Kafka broker per folder, shared by the commands that use that folder.

    The first command starts it; it ends with that command, which waits for the others if it ends in peace. Two
    folders never share a port: each start takes free ones and writes the address into the folder, whose files are

        data/       Kafka's own log directory         address     where the running broker listens
        owner.lock  held by the command that runs it  users.lock  held, shared, by the commands that use it
    """

    def __init__(self, home: Path) -> None:
        """Nothing is touched before `connect`."""
        self.home = home.absolute()
        self._address = self.home / "address"
        self._process: ChildProcess | None = None
        self._owner: IO[str] | None = None
        self._user: IO[str] | None = None

    def running(self) -> str | None:
        """The address of the broker that runs now, or None."""
        try:
            with self._open("owner.lock") as owner:
                if _locked(owner, fcntl.LOCK_SH):
                    return None
            return self._address.read_text() or None
        except FileNotFoundError:
            return None

    def connect(self, topic: str) -> str:
        """The address (`host:port`) of the broker, started if it does not run; `topic` exists in it.

        Raises:
            BrokerError: it did not start, or stopped while starting.
            JavaError: there is no Java to run it, or its jars cannot be had.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            self._owner = self._open("owner.lock")
            if _locked(self._owner, fcntl.LOCK_EX):
                return self._start(topic)
            self._owner.close()
            self._owner = None
            self._user = self._open("users.lock")
            if _locked(self._user, fcntl.LOCK_SH) and self._address.exists():
                address = self._address.read_text()
                if _answers(address):
                    _create_topic(address, topic)
                    return address
            self._user.close()
            self._user = None
            time.sleep(0.1)
        raise BrokerError(
            f"another command is starting or stopping the Kafka broker in {self.home} and does not finish"
        )

    def close(self, patient: bool = True) -> None:
        """End the use of the broker; whoever started it stops it, when `patient` after the other commands ended."""
        if self._user is not None:
            self._user.close()
            self._user = None
        if self._owner is None:
            return
        with self._open("users.lock") as users:
            if patient and not _locked(users, fcntl.LOCK_EX):
                log.warning("Kafka stays up until the other commands that use it have ended (Ctrl-C to stop it now)")
                fcntl.flock(users, fcntl.LOCK_EX)
            self._address.unlink(missing_ok=True)
            if self._process is not None:
                self._process.stop()
                self._process = None
        self._owner.close()
        self._owner = None

    @contextmanager
    def serving(self, topic: str) -> Iterator[str]:
        """`connect` on entry, `close` on exit; not patient where the exit is an interruption."""
        try:
            yield self.connect(topic)
        except (KeyboardInterrupt, SystemExit):
            self.close(patient=False)
            raise
        finally:
            self.close()

    def _open(self, name: str) -> IO[str]:
        return (self.home / name).open("a")

    def _start(self, topic: str) -> str:
        try:
            self._address.unlink(missing_ok=True)
            self._await_previous()
            address = self._launch()
            _create_topic(address, topic)
        except BaseException:
            self.close(patient=False)
            raise
        staged = self.home / "address.staged"
        staged.write_text(address)
        staged.replace(self._address)
        return address

    def _await_previous(self) -> None:
        """Let the broker of a command that was killed end, which takes a moment; Kafka locks the data it uses."""
        lock = self.home / "data/.lock"
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while lock.exists() and not _free(lock):
            if time.monotonic() > deadline:
                raise BrokerError(f"another Kafka broker uses {self.home / 'data'} and does not end")
            time.sleep(0.05)

    def _launch(self) -> str:
        executable = java()
        if not (self.home / "data").exists():
            log.warning("Preparing a Kafka broker in %s; the first on a machine downloads Kafka's jars", self.home)
        classpath = os.pathsep.join(map(str, jars(*KAFKA_JARS)))
        port, controller = free_port(), free_port()
        address = f"127.0.0.1:{port}"
        properties = self.home / "server.properties"
        properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{address}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={self.home / "data"}
num.partitions={PARTITIONS}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
"""
        )
        run = [str(executable), *JVM_FLAGS, "-cp", classpath]
        if not (self.home / "data/meta.properties").exists():
            cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            format_log = self.home / "format.log"
            storage_tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(properties)]
            formatting = ChildProcess([*run, *storage_tool], format_log)
            while formatting.running:
                time.sleep(0.05)
            formatting.stop()
            if not (self.home / "data/meta.properties").exists():
                raise BrokerError(
                    f"Kafka could not prepare {self.home / 'data'}; {format_log} ends:\n{formatting.tail()}"
                )
        self._process = ChildProcess([*run, "kafka.Kafka", str(properties)], self.home / "broker.log")
        self._wait_until_ready(address)
        return address

    def _wait_until_ready(self, address: str) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self._process.running and time.monotonic() < deadline:
            if _answers(address):
                return
        raise BrokerError(f"Kafka did not start; {self._process.log} ends:\n{self._process.tail()}")


def _create_topic(address: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    if topic in admin.list_topics(timeout=START_TIMEOUT_SECONDS).topics:
        return
    try:
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(START_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another command was quicker
            raise BrokerError(f"topic {topic!r} could not be made: {error.args[0].str()}") from None


def _answers(address: str) -> bool:
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 200})
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def _free(lock: Path) -> bool:
    """Whether nobody holds a lock that Java made, which is of another kind (`fcntl`) than ours."""
    with lock.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _locked(file: IO[str], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
