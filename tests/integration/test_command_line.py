"""The README's commands, as a user types them: each in a process and a folder of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from playwright.sync_api import expect

from resources.jvm import free_port

DAGSTER = [sys.executable, "-m", "dagster"]
SETTINGS = ("LAKEHOUSE_ROOT", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_PROPERTIES_FILE", "SPARK_REMOTE")


@pytest.fixture
def command(tmp_path):
    """Run a command in a folder of its own with the given settings; what became of it."""

    def run(*words, cwd=tmp_path, **settings):
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        environment |= {"DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "yes", **settings}
        return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)

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
    stats = root / "gold/stats"
    return {row["type"]: row["total"] for row in pq.read_table(stats).to_pylist()} if stats.exists() else {}


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
        (pytest.fail if "CI" in os.environ else pytest.skip)("kcat is not installed (Debian, Ubuntu: apt install kcat)")
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


@dataclass(frozen=True)
class Dev:
    """`python -m lakehouse_dagster dev` in a folder of its own, and the address of its UI."""

    process: subprocess.Popen
    url: str
    folder: Path

    @property
    def lake(self):
        return self.folder / ".lakehouse/data"

    def said(self):
        return (self.folder / "dev.log").read_text()[-3000:]


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """It takes long to start, so that the tests share it; what each finds in its Gold is what others left."""
    folder = tmp_path_factory.mktemp("dev")
    port = free_port()
    command = [sys.executable, "-m", "lakehouse_dagster", "dev", "-m", "lakehouse_dagster.definitions"]
    environment = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, "DAGSTER_HOME")}
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=environment | {"DAGSTER_DISABLE_TELEMETRY": "yes"},
            stdout=log,
            stderr=log,
        )
        started = Dev(process, f"http://127.0.0.1:{port}", folder)
        try:
            assert eventually(lambda: process.poll() is not None or answers(started.url), 180), started.said()
            yield started
        finally:
            if process.poll() is None:  # where a test failed, or the one that ends it did not run
                for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess, ProcessLookupError):
                        child.kill()
                process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=30):
            return True
    except OSError:
        return False


def ten_more_of_each(totals):
    return {kind: totals.get(kind, 0) + 10 for kind in ("bike", "car", "scoot")}


def test_while_dev_runs_events_from_another_terminal_become_gold_with_nobody_clicking(dev, command):
    before = gold(dev.lake)
    produced = command(sys.executable, "-m", "producer", "--count", "30", "--seed", "1", cwd=dev.folder)
    assert produced.returncode == 0, produced.stderr
    assert "30 events delivered" in produced.stdout
    assert eventually(lambda: gold(dev.lake) == ten_more_of_each(before), 180), dev.said()


def test_materialize_all_in_the_ui_sends_events_takes_them_to_gold_and_shows_it(dev, browser_page):
    before = gold(dev.lake)
    browser_page.goto(f"{dev.url}/asset-groups")
    browser_page.get_by_role("button", name="Materialize all").click()
    browser_page.get_by_role("link", name="View", exact=True).click()
    ended = browser_page.get_by_text(re.compile("^(Success|Failure)$"))
    expect(ended).to_have_text("Success", timeout=180_000)
    assert gold(dev.lake) == ten_more_of_each(before)

    browser_page.goto(f"{dev.url}/assets/gold/stats")
    for kind, total in gold(dev.lake).items():
        expect(browser_page.get_by_role("row", name=re.compile(rf"^{kind} {total} "))).to_be_visible()
    browser_page.get_by_role("tab", name="Checks").click()
    expect(browser_page.get_by_text("equals_recomputation").first).to_be_visible()
    expect(browser_page.get_by_text("Passed", exact=True)).to_be_visible()


def test_ctrl_c_ends_dev_and_all_that_it_started(dev):  # the last one: there is no `dev` after it
    dev.process.send_signal(signal.SIGINT)
    assert dev.process.wait(60) == 0, dev.said()
    assert eventually(lambda: processes_of(dev.folder) == [], 15), processes_of(dev.folder)
