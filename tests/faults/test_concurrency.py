"""Several writers at once: what the lease makes of them, and what they would be without it."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from resources.jvm import ChildProcess, free_port
from resources.lease import lease
from resources.spark import answers, connect_server_command

pytestmark = pytest.mark.faults

IN_FULL = "FAULTS_KILLS" in os.environ
WRITER = Path(__file__).with_name("writer.py")


def test_runs_started_at_once_wait_for_each_other_and_make_the_tables_of_one(traffic, runs, witness):
    traffic.pause(events=50)
    with lease(witness.root / "bronze/vehicles_events", "a fifth", 0, print):
        four = [runs.start() for _ in range(4)]
        runs.logged("Waiting for a fifth .*, who writes .*/bronze/vehicles_events", times=4)
    assert [runs.ended(run) for run in four] == [0, 0, 0, 0]
    records, wrong = witness.wrong()
    assert records >= 50
    assert +wrong == {}
    assert witness.versions_of_tables() == [1, 1, 1, 1], "one commit each, as of one run"


def test_a_holder_that_hangs_is_not_robbed_and_one_that_dies_frees_the_lease_at_once(traffic, runs, witness, moments):
    traffic.pause(events=50)
    hung = runs.stop_at(moments["bronze/vehicles_events: data written, not committed"])
    patient = runs.start()
    runs.logged(rf"Waiting for Dagster run \S+ \(process {hung} on ")
    assert runs.ended(runs.start(patience=1)) == 1
    runs.logged(rf"LeaseTimeout: Dagster run \S+ \(process {hung} on .*has been writing .* for over 1 s")
    assert not (witness.root / "silver").exists(), "nobody went past the holder"
    os.kill(hung, signal.SIGKILL)
    assert [runs.ended(hung), runs.ended(patient)] == [-signal.SIGKILL, 0]
    assert +witness.wrong()[1] == {}
    assert witness.versions_of_tables() == [1, 1, 1, 1]


@pytest.fixture
def two_jvms(tmp_path):
    """The URLs of two Apache Spark Connect servers, each in a JVM of its own."""
    servers = []
    try:
        for name in ("one", "two"):
            home, port = tmp_path / name, free_port()
            home.mkdir()
            servers.append(ChildProcess(connect_server_command("local[1]", port, home), home / "spark.log"))
            assert any(answers(f"sc://localhost:{port}", 1) for _ in range(90) if servers[-1].running)
            servers[-1].url = f"sc://localhost:{port}"
        yield [server.url for server in servers]
    finally:
        for server in servers:
            server.stop()


def race(path, engines, marks, seconds):
    """Writers without a lease, begun at once: commits told as made, refused, lost, and numbers made twice."""
    DeltaTable.create(str(path), pa.schema([("number", pa.int64()), ("writer", pa.string())]))
    writers = []
    for number, (engine, mark) in enumerate(zip(engines, marks, strict=True)):
        command = [sys.executable, str(WRITER), str(path), mark, str(seconds), engine, f"writer {number}"]
        writers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * len(writers)
        for writer in writers:
            writer.stdin.close()
            writer.stdin = None
        told = [json.loads(writer.communicate(timeout=120)[0]) for writer in writers]
    finally:
        for writer in writers:
            writer.kill()
    rows = pa.table(DeltaTable(str(path)).to_pyarrow_table()).to_pylist()
    # Writers with one mark count together, others each for themselves.
    together = len(set(marks)) == 1
    key = (lambda number, _: number) if together else (lambda number, writer: (number, writer))
    found = Counter(key(row["number"], row["writer"]) for row in rows)
    committed = [key(number, writer["writer"]) for writer in told for number in writer["committed"]]
    refused = sum((Counter(writer["refused"]) for writer in told), Counter())
    lost = len(set(committed) - found.keys())
    return len(committed), refused, lost, sum(count - 1 for count in found.values())


def test_what_happens_without_the_lease(tmp_path, request, reliability):
    pairs = {"delta-rs against delta-rs": ["-", "-"]}
    seconds = 2
    if IN_FULL:
        one, two = request.getfixturevalue("two_jvms")
        pairs |= {"delta-rs against Apache Spark": ["-", one], "Apache Spark against Apache Spark": [one, two]}
        seconds = 15
    for names, engines in pairs.items():
        for kind, marks in {"the same mark": ["mark", "mark"], "marks of their own": ["one", "two"]}.items():
            made, refused, lost, twice = race(tmp_path / f"{names} {kind}", engines, marks, seconds)
            reliability.without_lease(names, kind, made, refused, lost, twice)
            if names == "delta-rs against delta-rs":
                assert (lost, twice) == (0, 0)
                assert not refused or kind == "the same mark"
