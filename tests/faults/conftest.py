"""The fault harness: known events, runs that are killed at a moment, a reader all the while, and a witness.

What it decides by chance follows from a seed, FAULTS_SEED, which it prints. What the machine decides, which record
meets which run, does not repeat. `make test-faults` sets FAULTS_KILLS, FAULTS_MINUTES and FAULTS_REPORT.
"""

import ctypes
import json
import os
import random
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from deltalake import DeltaTable

HERE = Path(__file__).parent
DELTA_TABLES = ["bronze/vehicles_events", "silver/vehicles_events", "silver/rejected_events", "gold/daily_stats"]
RUN_SECONDS_AT_MOST = 300

IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_ISDIR = 0x8, 0x80, 0x100, 0x40000000


@dataclass(frozen=True)
class Moment:
    """When a run is killed: as soon as the filesystem says that a path appeared, or at any time if there is none."""

    name: str
    path: str | None = None
    events: int = IN_CREATE | IN_MOVED_TO

    def is_it(self, path: str, events: int) -> bool:
        return self.path is not None and bool(events & self.events) and re.fullmatch(self.path, path) is not None


def _moments() -> Iterator[Moment]:
    yield Moment("at a random instant")
    for table in DELTA_TABLES:
        yield Moment(f"{table}: data written, not committed", rf"{table}/(?!_delta_log/).*\.parquet")
        yield Moment(f"{table}: just committed", rf"{table}/_delta_log/\d+\.json")
    yield Moment("gold/stats: the staged file begun", r"gold/\.stats\.staged", IN_CREATE)
    yield Moment("gold/stats: the staged file written, not renamed", r"gold/\.stats\.staged", IN_CLOSE_WRITE)
    yield Moment("gold/stats: just renamed", r"gold/stats/stats\.parquet", IN_MOVED_TO)


MOMENTS = list(_moments())
# Once in a lake's life, in this order.
CREATION = [
    moment
    for table in DELTA_TABLES
    for moment in (
        Moment(f"{table}: being created, not committed", rf"{table}/_delta_log"),
        Moment(f"{table}: just created", rf"{table}/_delta_log/0+\.json"),
    )
]


@pytest.fixture(scope="session")
def seed() -> str:
    """FAULTS_SEED, or a new one; printed, so that a run can be repeated."""
    chosen = os.environ.get("FAULTS_SEED") or uuid.uuid4().hex[:8]
    print(f"FAULTS_SEED={chosen}", flush=True)
    return chosen


class Traffic:
    """A producer that never pauses unless asked to, of records that say in a header whether they are valid events.

    Among new events come events that were sent before, byte for byte, and everything that is no event.
    """

    GARBAGE = (None, b"", b"{}", b"junk", b"\xff\xfe", b'{"event_id": 1}', b"[" * 100_000)
    KINDS = ("new", "again", "garbage")

    def __init__(self, broker: str, topic: str, seed: str) -> None:
        self._topic = topic
        self._chance = random.Random(seed)
        self._sent: list[tuple[bytes, bytes]] = []
        self._producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "log_level": 0})
        self._going, self._at_rest, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self.go_on()
        self._thread.start()

    def go_on(self) -> None:
        self._at_rest.clear()
        self._going.set()

    def pause(self, events: int = 0) -> None:
        """Send no more after so many events, and return when all that was sent is in the topic."""
        while len(self._sent) < events:
            self._ended.wait(0.1)
        self._going.clear()
        assert self._at_rest.wait(60)

    def end(self) -> None:
        self._ended.set()
        self._going.set()
        self._thread.join(60)

    def _produce(self) -> None:
        while not self._ended.wait(0.1):
            if not self._going.is_set():
                if self._producer.flush(60) == 0:
                    self._at_rest.set()
                self._going.wait()
            for _ in range(self._chance.randint(0, 8)):
                key, value, valid = self._record()
                partition = self._chance.randrange(3)
                self._producer.produce(self._topic, value, key, partition, headers=[("valid", valid)])
            self._producer.poll(0)

    def _record(self) -> tuple[bytes, bytes | None, bytes]:
        (kind,) = self._chance.choices(self.KINDS, (70, 15, 15))
        if kind == "garbage":
            return b"?", self._chance.choice(self.GARBAGE), b"no"
        if kind == "new" or not self._sent:
            self._sent.append(self._event())
            return *self._sent[-1], b"yes"
        return *self._chance.choice(self._sent), b"yes"

    def _event(self) -> tuple[bytes, bytes]:
        vehicle = f"vehicle-{self._chance.randrange(50)}"
        event = {
            "event_id": str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
            "vehicle_id": vehicle,
            "type": self._chance.choice(["car", "bike", "scoot", "other"]),
            "battery": self._chance.choice([None, round(self._chance.uniform(0, 100), 2)]),
            "lat": self._chance.uniform(-90, 90),
            "lon": self._chance.uniform(-180, 180),
            "event_time": f"2026-01-0{self._chance.randint(1, 3)}T{self._chance.randrange(24):02}:00:00Z",
        }
        return vehicle.encode(), json.dumps(event).encode()


@pytest.fixture
def traffic(broker: str, topic: str, seed: str) -> Iterator[Traffic]:
    """The producer of known events, at work."""
    producing = Traffic(broker, topic, seed)
    yield producing
    producing.end()


class Watch:
    """What appears in a folder and all below it, told by the kernel (inotify) as it happens."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}
        self._root = folder
        folder.mkdir(parents=True, exist_ok=True)
        list(self._add(folder))

    def close(self) -> None:
        os.close(self.fd)

    def new(self) -> list[tuple[str, int]]:
        """What appeared since the last time: path below the folder, and inotify's events."""
        return list(self._new())

    def _new(self) -> Iterator[tuple[str, int]]:
        while True:
            try:
                buffer = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            place = 0
            while place < len(buffer):
                number, events, _, length = struct.unpack_from("iIII", buffer, place)
                name = buffer[place + 16 : place + 16 + length].rstrip(b"\0").decode()
                place += 16 + length
                path = self._folders[number] / name
                yield str(path.relative_to(self._root)), events
                if events & IN_ISDIR:
                    yield from self._add(path)

    def _add(self, folder: Path) -> Iterator[tuple[str, int]]:
        """Watch a folder; what was put into it before it was watched is told as created."""
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE)
        assert number >= 0, os.strerror(ctypes.get_errno())
        self._folders[number] = folder
        for entry in folder.iterdir():
            yield str(entry.relative_to(self._root)), IN_CREATE
            if entry.is_dir():
                yield from self._add(entry)


@dataclass
class Seen:
    """What became of the runs of one engine."""

    seed: str
    engine: str
    kills: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    failed: int = 0
    hands: int = 0
    checks: int = 0
    seconds: float = 0
    wrong: Counter[str] = field(default_factory=Counter)
    records: int = 0
    reads: int = 0
    half_written: list[str] = field(default_factory=list)
    leftovers: int = 0


class Runs:
    """Runs of `refresh` on one lake, each a process that can be killed at a moment."""

    def __init__(
        self,
        root: Path,
        broker: str,
        topic: str,
        log: Path,
        remote: str | None = None,
        most: int = 100_000,
    ) -> None:
        self.root = root
        self.log = log
        command = [sys.executable, str(HERE / "runs.py"), str(root), broker, topic]
        command += [remote or "-", str(most)]
        with log.open("wb") as output:
            self._parent = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, bufsize=0
            )
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._orders, self._news = self._parent.stdin, self._parent.stdout
        self._watch = Watch(root)
        self._codes: dict[int, int] = {}
        assert self._said(RUN_SECONDS_AT_MOST) == ["ready"], log.read_text()

    def clean(self) -> tuple[bool, float]:
        """One run to its end: whether it succeeded, and its seconds."""
        started = time.monotonic()
        return self.ended(self.start()) == 0, time.monotonic() - started

    def kill(self, moment: Moment, instant: float) -> int:
        """One run, killed at a moment, or after `instant` seconds; the exit code, -SIGKILL if the kill was in time."""
        self._watch.new()
        run = self.start()
        process = os.pidfd_open(run)
        if moment.path is None:
            over = bool(select.select([self._news], [], [], instant)[0])
        else:
            over = self._over_before(moment)
        if not over:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)
        return self.ended(run)

    def stop_at(self, moment: Moment) -> int:
        """One run, stopped at a moment but alive; its process."""
        self._watch.new()
        process = self.start()
        assert not self._over_before(moment), f"it never came to {moment}"
        os.kill(process, signal.SIGSTOP)
        return process

    def close(self) -> None:
        self._orders.close()
        self._parent.wait(RUN_SECONDS_AT_MOST)
        self._news.close()
        self._watch.close()

    def start(self, patience: float = 3600) -> int:
        """Start a run that waits so many seconds for a lease; its process."""
        self._orders.write(f"{patience}\n".encode())
        word, process = self._said(60)
        assert word == "started"
        return int(process)

    def ended(self, run: int) -> int:
        """Wait for the end of a run; its exit code, negative if a signal ended it."""
        while run not in self._codes:
            try:
                word, process, status = self._said(RUN_SECONDS_AT_MOST)
            except AssertionError:
                os.kill(run, signal.SIGKILL)
                raise
            assert word == "ended"
            self._codes[int(process)] = os.waitstatus_to_exitcode(int(status))
        return self._codes.pop(run)

    def logged(self, pattern: str, times: int = 1) -> list[str]:
        """What the runs say that matches, waited for until there is so much of it."""
        deadline = time.monotonic() + RUN_SECONDS_AT_MOST
        while time.monotonic() < deadline:
            found = re.findall(pattern, self.log.read_text())
            if len(found) >= times:
                return found
            select.select([], [], [], 0.05)
        raise AssertionError(f"{pattern!r} is not {times} times in\n{self.log.read_text()[-3000:]}")

    def _over_before(self, moment: Moment) -> bool:
        deadline = time.monotonic() + RUN_SECONDS_AT_MOST
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._watch.fd, self._news], [], [], 1)
            if self._watch.fd in ready and any(moment.is_it(*event) for event in self._watch.new()):
                return False
            if self._news in ready:
                return True
        raise AssertionError(f"a run does not end:\n{self.log.read_text()[-3000:]}")

    def _said(self, seconds: float) -> list[str]:
        assert select.select([self._news], [], [], seconds)[0], f"no answer:\n{self.log.read_text()[-3000:]}"
        line = self._news.readline().decode()
        assert line, f"the parent of the runs is gone:\n{self.log.read_text()[-3000:]}"
        return line.split()


@dataclass
class Witness:
    """The topic and the tables, compared by code that shares nothing with the pipeline."""

    root: Path
    broker: str
    topic: str

    def wrong(self) -> tuple[int, Counter[str]]:
        """How many records the topic has, and how often the tables are not what they make."""
        topic = self._in_topic()
        bronze = self._rows("bronze/vehicles_events", "partition", "offset", "key", "value", "headers", "batch")
        silver = self._rows("silver/vehicles_events", "partition", "offset", "event_id")
        rejected = self._rows("silver/rejected_events", "partition", "offset")
        landed = Counter(row[:2] for row in bronze)
        judged = Counter(row[:2] for row in silver) + Counter(row[:2] for row in rejected)
        batches = {row[:2]: row[5] for row in bronze}
        first: dict[str, tuple[int, int, int]] = {}
        events: dict[str, dict[str, Any]] = {}
        for place, (_, value, headers) in topic.items():
            if dict(headers)["valid"] == b"yes":
                event = json.loads(value)
                events[event["event_id"]] = event
                order = (batches.get(place, 0), *place)
                first[event["event_id"]] = min(first.get(event["event_id"], order), order)
        expected = {(event_id, partition, offset) for event_id, (_, partition, offset) in first.items()}
        found = Counter((row[2], row[0], row[1]) for row in silver)
        wrong = {
            "lost": sum(1 for place in topic if place not in landed),
            "made up": sum(
                1
                for p, o, key, value, headers, _ in bronze
                if (key, value, [(h["key"], h["value"]) for h in headers]) != topic.get((p, o))
            ),
            "doubled": sum(count - 1 for count in landed.values()),
            "unaccounted": sum(1 for place in landed.keys() | judged.keys() if landed[place] != judged[place]),
            "twice in Silver": len(silver) - len({row[2] for row in silver}),
            "Silver not the valid events": len(expected ^ found.keys()),
            "Gold not the recomputation": self._gold_differs(list(events.values())),
        }
        return len(topic), Counter(wrong)

    def versions_of_tables(self) -> list[int]:
        """The version of each Delta table."""
        return [DeltaTable(str(self.root / table)).version() for table in DELTA_TABLES]

    def versions(self) -> dict[str, Any]:
        """What a run without news leaves as it is: the tables' versions, and every data file."""
        files = {str(file): file.stat().st_mtime_ns for file in self.root.rglob("*.parquet")}
        return dict(zip(DELTA_TABLES, self.versions_of_tables(), strict=True)) | files

    def commits(self, table: str) -> int:
        """What changes with each of a table's commits: their number, or of Gold's statistics the file in place."""
        if table == "gold/stats":
            file = self.root / "gold/stats/stats.parquet"
            return file.stat().st_ino if file.exists() else 0
        return len(list((self.root / table / "_delta_log").glob("[0-9]*.json")))

    def leftovers(self) -> int:
        """Data files that no version of a table names."""
        files = {file for table in DELTA_TABLES for file in (self.root / table).rglob("*.parquet*")}
        logged = {
            self.root / table / json.loads(line)["add"]["path"].replace("%3D", "=")
            for table in DELTA_TABLES
            for entry in (self.root / table / "_delta_log").glob("*.json")
            for line in entry.read_text().splitlines()
            if "add" in json.loads(line)
        }
        return len({file for file in files if "_delta_log" not in file.parts} - logged)

    def _gold_differs(self, events: list[dict[str, Any]]) -> int:
        expected = {}
        for kind in {event["type"] for event in events}:
            of_kind = [event for event in events if event["type"] == kind]
            batteries = [Fraction(str(event["battery"])) for event in of_kind if event["battery"] is not None]
            average = float(sum(batteries) / len(batteries)) if batteries else None
            expected[kind] = (len(of_kind), pytest.approx(average, abs=1e-9), max(event["lat"] for event in of_kind))
        rows = pq.read_table(self.root / "gold/stats").to_pylist()
        found = {row["type"]: (row["total"], row["avg_battery"], row["max_lat"]) for row in rows}
        return (
            len(rows) - len(found) + sum(1 for k in expected.keys() | found.keys() if found.get(k) != expected.get(k))
        )

    def _rows(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        found = DeltaTable(str(self.root / table)).to_pyarrow_table(columns=list(columns))
        return list(zip(*(found[column].to_pylist() for column in columns), strict=True))

    def _in_topic(self) -> dict[tuple[int, int], tuple[bytes, bytes | None, list[tuple[str, bytes]]]]:
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": "witness", "enable.partition.eof": True})
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in range(3)])
        found, ended = {}, 0
        while ended < 3:
            for message in consumer.consume(10_000, 0.2):
                if message.error() is None:
                    place = message.partition(), message.offset()
                    found[place] = (message.key(), message.value(), message.headers())
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF
                    ended += 1
        consumer.close()
        return found


@pytest.fixture
def witness(tmp_path: Path, broker: str, topic: str) -> Witness:
    """Who compares the lake of `runs` with the topic."""
    return Witness(tmp_path / "lake", broker, topic)


@pytest.fixture
def moments() -> dict[str, Moment]:
    """The moments at which a run can be killed, by name."""
    return {moment.name: moment for moment in MOMENTS}


@pytest.fixture
def runs(tmp_path: Path, broker: str, topic: str) -> Iterator[Runs]:
    """Runs on a lake of their own."""
    made = Runs(tmp_path / "lake", broker, topic, tmp_path / "runs.log")
    yield made
    made.close()


@dataclass
class Harness:
    """Kills runs on a lake while its topic is written and its tables are read, and counts what it sees."""

    root: Path
    broker: str
    topic: str
    traffic: Traffic
    seed: str

    def __call__(
        self, engine: str, kills: int, minutes: float, checks: int, remote: str | None = None, most: int = 100_000
    ) -> Seen:
        """At most so many kills in so many minutes, with a clean run and all promises checked several times."""
        seen = Seen(self.seed, engine)
        chance = random.Random(f"{self.seed} {engine}")
        runs = Runs(self.root, self.broker, self.topic, self.root.parent / "runs.log", remote, most)
        witness = Witness(self.root, self.broker, self.topic)
        reader = subprocess.Popen(
            [sys.executable, str(HERE / "reader.py"), str(self.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started = time.monotonic()
        durations = [2.0]
        moments = CREATION[::-1] if kills > len(MOMENTS) else []
        try:
            for check in range(1, checks + 1):
                while seen.kills.total() < kills * check / checks and time.monotonic() - started < minutes * 60:
                    if not moments:
                        moments = chance.sample(MOMENTS, len(MOMENTS))
                    moment = moments.pop()
                    table = moment.name.split(":")[0]
                    before = witness.commits(table)
                    if moment in CREATION and before:
                        continue
                    code = runs.kill(moment, chance.uniform(0, statistics.median(durations[-5:])))
                    if code == -signal.SIGKILL:
                        seen.kills[moment.name] += 1
                        seen.inside[moment.name] += ", not " in moment.name and witness.commits(table) == before
                    elif code == 0:
                        seen.finished += 1
                    else:
                        seen.failed += 1
                durations.append(self._check(seen, runs, witness))
        finally:
            said, _ = reader.communicate(timeout=120)
            runs.close()
        seen.seconds = time.monotonic() - started
        told = json.loads(said)
        seen.reads, seen.half_written = told["reads"], told["half-written"]
        seen.leftovers = witness.leftovers()
        return seen

    def _check(self, seen: Seen, runs: Runs, witness: Witness) -> float:
        """One clean run after the kills, and the promises; the run's seconds."""
        self.traffic.pause()
        good, seconds = runs.clean()
        if not good:
            seen.hands += 1
            print(f"a clean run failed:\n{runs.log.read_text()[-5000:]}")
            good, seconds = runs.clean()
            assert good, f"the tables do not heal:\n{runs.log.read_text()[-5000:]}"
        seen.records, wrong = witness.wrong()
        seen.wrong += wrong
        before = witness.versions()
        good, _ = runs.clean()
        seen.wrong["versions without news"] += not good or witness.versions() != before
        seen.checks += 1
        self.traffic.go_on()
        return seconds


@pytest.fixture
def harness(tmp_path: Path, broker: str, topic: str, traffic: Traffic, seed: str) -> Callable[..., Seen]:
    """The fault harness, on a lake of its own."""
    return Harness(tmp_path / "lake", broker, topic, traffic, seed)


class Reliability:
    """What was seen, as a page: docs/reliability.md is this, if FAULTS_REPORT names it."""

    PROMISES: ClassVar = {
        "lost": "records of the topic that Bronze lacks",
        "made up": "Bronze rows that are not a record of the topic, byte for byte",
        "doubled": "records that Bronze has more than once",
        "unaccounted": "records that are not once in Bronze and once in Silver or rejected",
        "twice in Silver": "event_ids that Silver has more than once",
        "Silver not the valid events": "valid events that Silver lacks, or has from another record than the first",
        "Gold not the recomputation": "rows of Gold that a recomputation from the topic does not give",
        "versions without news": "clean runs without news that failed, or changed a version or a file",
    }

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.races: list[str] = []

    def add(self, seen: Seen) -> None:
        self.seen.append(seen)

    def without_lease(self, names: str, marks: str, made: int, refused: Counter[str], lost: int, twice: int) -> None:
        errors = ", ".join(f"{count} {name}" for name, count in refused.items()) or "0"
        self.races.append(self._row(f"{names}, {marks}", [made, errors, lost, twice]))

    def page(self) -> str:
        races = [RACES, *self.races] if self.races else []
        return "\n".join([*self._kills(), *races])

    def _kills(self) -> Iterator[str]:
        if not self.seen:
            return
        yield HEAD.format(
            seed=self.seen[0].seed,
            kills=sum(seen.kills.total() for seen in self.seen),
            minutes=sum(seen.seconds for seen in self.seen) / 60,
            command="make test-faults "
            + "".join(
                f"{name}={os.environ[name]} " for name in ("FAULTS_KILLS", "FAULTS_MINUTES") if name in os.environ
            )
            + f"FAULTS_SEED={self.seen[0].seed}",
        )
        yield self._row("killed", [seen.engine for seen in self.seen])
        yield self._row("---", ["---:"] * len(self.seen))
        for moment in [*CREATION, *MOMENTS]:
            aimed = ", not " in moment.name
            cells = [f"{s.kills[moment.name]}" + f" ({s.inside[moment.name]})" * aimed for s in self.seen]
            yield self._row(moment.name, cells)
        yield self._row("**all**", [f"**{seen.kills.total()}**" for seen in self.seen])
        yield SEEN
        yield self._row("seen", [seen.engine for seen in self.seen])
        yield self._row("---", ["---:"] * len(self.seen))
        for promise, text in self.PROMISES.items():
            yield self._row(text, [seen.wrong[promise] for seen in self.seen])
        yield self._row(
            "half-written or failed reads, of all reads", [f"{len(s.half_written)} of {s.reads}" for s in self.seen]
        )
        yield self._row("runs that failed by themselves", [seen.failed for seen in self.seen])
        yield self._row("clean runs that needed a hand, of all checks", [f"{s.hands} of {s.checks}" for s in self.seen])
        yield self._row("records in the topic at the end", [seen.records for seen in self.seen])
        yield self._row("data files left by killed runs, of no version", [seen.leftovers for seen in self.seen])
        yield self._row("minutes", [f"{seen.seconds / 60:.1f}" for seen in self.seen])

    def _row(self, name: str, cells: list[Any]) -> str:
        return f"| {name} | {' | '.join(map(str, cells))} |"


HEAD = """# Reliability

This page is written by `make test-faults`, from what it counted; nothing is filled in by hand. What was promised is in
each row; what was seen stands beside it.

## Runs killed by SIGKILL

{kills} runs of `refresh` were killed in {minutes:.0f} minutes, while a producer sent new events, repeated ones and
garbage, and a reader read every table. To repeat:

    {command}

The seed decides what is sent and when runs are killed; how the two meet is the machine's.

How often each moment was hit; in brackets, how often the run died before what it had begun was committed (the kernel
tells the harness of the file, and meanwhile the run goes on):
"""
SEEN = """
After every so many kills the producer paused, one run was let go to its end, and the tables were compared with the
topic by code that shares nothing with the pipeline. Added up over all these checks:
"""
RACES = """
## Two writers without the lease

In the pipeline a table has one writer at a time, by its lease. Here two processes append to one table at once without
it, each as the pipeline would: it reads the mark, and commits the next number with one row. Where both use the same
mark, a number may be committed once, and the other has to be refused; with marks of their own, both have to succeed.
*Lost* is a commit that its writer was told is made and that the table does not have. A row of few commits says little.

| writers | told as made | refused | lost | made twice |
| --- | ---: | --- | ---: | ---: |"""


@pytest.fixture(scope="session")
def reliability() -> Iterator[Reliability]:
    """Collects what the tests see; the page is written at their end, also if one failed."""
    collected = Reliability()
    yield collected
    print(collected.page(), flush=True)
    if "FAULTS_REPORT" in os.environ:
        Path(os.environ["FAULTS_REPORT"]).write_text(collected.page() + "\n")
