"""The README's commands, as a user types them: each in a process and a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from resources.jvm import free_port

DAGSTER = [sys.executable, "-m", "dagster"]
SETTINGS = ("LAKEHOUSE_ROOT", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_PROPERTIES_FILE", "SPARK_REMOTE")


@pytest.fixture
def command(tmp_path):
    """Run a command in a folder of its own with the given settings; what became of it."""

    def run(*words, timeout=240, **settings):
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        environment |= {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "yes", **settings}
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def execute(command, broker, topic, tmp_path):
    """`dagster job execute` of refresh, on the session's broker and the new topic unless told otherwise."""

    def run(job="refresh", **settings):
        defaults = {
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "KAFKA_TOPIC": topic,
            "LAKEHOUSE_ROOT": str(tmp_path / "lake"),
        }
        return command(
            *DAGSTER, "job", "execute", "-m", "lakehouse_dagster.definitions", "-j", job, **(defaults | settings)
        )

    return run


def gold(root):
    return {row["type"]: row["total"] for row in pq.read_table(root / "gold/stats").to_pylist()}


def an_event(kind):
    return json.dumps(
        {
            "event_id": str(uuid.uuid4()),
            "vehicle_id": "v",
            "type": kind,
            "lat": 1,
            "lon": 2,
            "event_time": "2026-01-01T00:00:00Z",
        }
    )


def eventually(true: Callable[[], object], seconds: float) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.2)
    return False


def processes_of(folder: Path) -> list[str]:
    """The processes that were started in a folder, or whose command names it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if str(folder) in " ".join(process.info["cmdline"] or []) or process.info["cwd"] == str(folder):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def test_messages_that_kcat_wrote_become_gold_by_dagster_job_execute(execute, broker, topic, tmp_path):
    kcat = shutil.which("kcat")
    if kcat is None:
        assert "CI" not in os.environ, "kcat is not installed, and CI must have it"
        pytest.skip("kcat is not installed (Debian, Ubuntu: apt install kcat)")
    lines = "\n".join([an_event("car"), an_event("bike"), "no JSON"])
    subprocess.run([kcat, "-P", "-b", broker, "-t", topic], input=lines, text=True, check=True, timeout=60)
    done = execute()
    assert done.returncode == 0, done.stderr[-3000:]
    assert gold(tmp_path / "lake") == {"bike": 1, "car": 1}
    assert not (tmp_path / ".lakehouse/kafka").exists(), "no broker of our own where another is named"
    lag = subprocess.run(
        [
            kcat,
            "-C",
            "-b",
            broker,
            "-t",
            topic,
            "-G",
            "lakehouse-bronze",
            topic,
            "-e",
            "-X",
            "enable.auto.commit=false",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert lag.stdout == "", "the group's offsets are at the end"


def test_apache_spark_in_a_local_jvm(execute, send, tmp_path):
    send(an_event("car").encode(), b"junk")
    done = execute(SPARK_REMOTE="local[2]")
    assert done.returncode == 0, done.stderr[-3000:]
    assert gold(tmp_path / "lake") == {"car": 1}
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS)"),
        ({"KAFKA_TOPIC": "nobody-made-it"}, "'nobody-made-it' (KAFKA_TOPIC) does not exist"),
        ({"KAFKA_PROPERTIES_FILE": "missing.properties"}, "missing.properties (KAFKA_PROPERTIES_FILE)"),
        ({"SPARK_REMOTE": "sc://127.0.0.1:1"}, "sc://127.0.0.1:1 (SPARK_REMOTE)"),
        ({"SPARK_REMOTE": "spark://host:7077"}, "SPARK_REMOTE is 'spark://host:7077'"),
        ({"LAKEHOUSE_ROOT": "/proc/lake"}, "LAKEHOUSE_ROOT"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_is_wrong_is_named_and_the_tables_stay_as_they_are(execute, send, tmp_path, settings, named):
    send(an_event("car").encode())
    done = execute(**settings)
    assert done.returncode != 0
    assert named in done.stderr + done.stdout
    for table in (tmp_path / "lake").glob("*/*/_delta_log"):
        DeltaTable(str(table.parent)).to_pyarrow_table()


@pytest.fixture
def dev(tmp_path):
    """`python -m lakehouse_dagster dev` in a folder of its own: the process and the UI's address."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "DAGSTER_HOME")}
    log = (tmp_path / "dev.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "lakehouse_dagster", "dev", "-m", "lakehouse_dagster.definitions", "--port", str(port)],
        cwd=tmp_path,
        env=environment | {"DAGSTER_DISABLE_TELEMETRY": "yes"},
        stdout=log,
        stderr=log,
    )
    yield process, f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()
    log.close()


def answered(url, query=None, variables=None):
    body = None if query is None else json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    except OSError:
        return None


LAUNCH = """
mutation ($job: String!) {
  launchRun(executionParams: {mode: "default", runConfigData: {}, selector: {
    jobName: $job, repositoryName: "__repository__", repositoryLocationName: "lakehouse_dagster.definitions"}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


def test_dev_is_kafka_and_ui_and_sensor_until_ctrl_c(dev, command, tmp_path):
    process, url = dev
    lake = tmp_path / ".lakehouse/data"

    def said():
        return (tmp_path / "dev.log").read_text()[-3000:]

    assert eventually(lambda: process.poll() is not None or answered(f"{url}/server_info"), 90), said()

    # Events from another terminal become Gold with nobody clicking.
    produced = command(sys.executable, "-m", "producer", "--count", "30", "--seed", "1")
    assert produced.returncode == 0, produced.stderr
    assert "30 events delivered" in produced.stdout
    assert eventually(lambda: (lake / "gold/stats/stats.parquet").exists(), 90), said()
    assert gold(lake) == {"bike": 10, "car": 10, "scoot": 10}

    # The UI launches every asset's job, which sends 30 more.
    result = answered(f"{url}/graphql", LAUNCH, {"job": "lakehouse"})["data"]["launchRun"]
    assert result["__typename"] == "LaunchRunSuccess", result
    assert eventually(lambda: gold(lake) == {"bike": 20, "car": 20, "scoot": 20}, 90), said()

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, said()
    assert eventually(lambda: processes_of(tmp_path) == [], 15), processes_of(tmp_path)
