"""A deployed overlay on the cluster that the kubeconfig names, and what users do with it."""

import json
import os
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from resources.jvm import free_port

PROJECT = Path(__file__).parents[2]
WITNESS = (Path(__file__).parent / "witness.py").read_text()
NAMESPACE = "lakehouse"
OURS = "lakehouse/made-by=tests"

# Ends when there is a file that was not there when it began.
WATCH = """
import pathlib, sys, time
found = lambda: set(pathlib.Path("/data").glob(sys.argv[1]))
before = found()
print("watching", flush=True)
while not found() - before:
    time.sleep(0.002)
"""
# Holds a table's lease until its standard input closes.
HOLD = """
import fcntl, pathlib, sys
path = pathlib.Path("/data", sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
with path.open("a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""

LAUNCH = """
mutation ($job: String!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {mode: "default", runConfigData: {}, executionMetadata: {tags: $tags}, selector: {
    jobName: $job, repositoryName: "__repository__", repositoryLocationName: "lakehouse_dagster"}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
RUNS = """
{ runsOrError(limit: 50) { ... on Runs { results {
    runId jobName status parentRunId repositoryOrigin { id } assetSelection { path } tags { key value } } } } }"""
EVENTS = """
query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
    ... on MessageEvent { message eventType } } } } }"""
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def _kubectl(*words: str, stdin: str | None = None, timeout: float = 300) -> str:
    """What `kubectl` says in the namespace; an error carries what it complained of."""
    done = subprocess.run(
        ["kubectl", "--namespace", NAMESPACE, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"kubectl {shlex.join(words)}: {done.stderr[-3000:]}{done.stdout[-3000:]}"
    return done.stdout


def _make(target: str, **settings: str) -> None:
    """A verb of the Makefile."""
    words = ["make", target, *(f"{name}={value}" for name, value in settings.items())]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}\n{state()}"


def state() -> str:
    """What a person would look at first when something is wrong."""
    looks = (["get", "pods"], ["get", "events", "--sort-by=.lastTimestamp"], ["logs", "deploy/daemon", "--tail=40"])
    said = [subprocess.run(["kubectl", "-n", NAMESPACE, *look], capture_output=True, text=True) for look in looks]
    return "\n".join(done.stdout[-6000:] for done in said)


def _eventually(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = true()
        if answer:
            return answer
        time.sleep(0.5)
    pytest.fail(f"not within {seconds} s: {what}\n{state()}")


@dataclass
class Cluster:
    """A deployed overlay: its UI's API, its pods, and its tables as a witness in the cluster reads them."""

    overlay: str
    _forwarding: subprocess.Popen[bytes] | None = field(default=None)
    _port: int = 0

    def ui(self) -> str:
        """The UI's address, forwarded to this machine; anew where its pod has changed."""
        if self._forwarding is None or self._forwarding.poll() is not None:
            self._port = free_port()
            self._forwarding = subprocess.Popen(
                ["kubectl", "-n", NAMESPACE, "port-forward", "service/webserver", f"{self._port}:80"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert self._forwarding.stdout is not None
            self._forwarding.stdout.readline()  # once it says so, it forwards
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """End the forwarding."""
        if self._forwarding is not None:
            self._forwarding.kill()
            self._forwarding.communicate()
            self._forwarding = None

    def graphql(self, query: str, **variables: Any) -> Any:
        """The data that the UI's API answers, once it answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()

        def ask() -> Any:
            request = urllib.request.Request(f"{self.ui()}/graphql", body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read())["data"]
            except OSError:
                self.close()
                return None

        return _eventually(ask, 120, "the UI answers")

    def launch(self, job: str, **tags: str) -> str:
        """The id of a new run of a job, asked for as the UI does."""
        answer = self.graphql(LAUNCH, job=job, tags=[{"key": k, "value": v} for k, v in tags.items()])["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def runs(self) -> list[dict[str, Any]]:
        """The runs that Dagster knows, newest first."""
        found = self.graphql(RUNS)["runsOrError"]["results"]
        return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def run(self, run_id: str) -> dict[str, Any]:
        """One of them."""
        (found,) = (run for run in self.runs() if run["runId"] == run_id)
        return found

    def in_flight(self) -> str | None:
        """The id of a launched run that has started and not ended."""
        started = (run for run in self.runs() if run["status"] == "STARTED" and run["repositoryOrigin"])
        return next((run["runId"] for run in started), None)

    def finished(self, run_id: str, seconds: float = 180) -> dict[str, Any]:
        """A run, when it has ended."""

        def ended() -> dict[str, Any] | None:
            run = self.run(run_id)
            return None if run["status"] in UNFINISHED else run

        return _eventually(ended, seconds, f"run {run_id} ends")

    def retry_of(self, run_id: str, seconds: float = 180) -> dict[str, Any]:
        """The run that Dagster started because another one crashed, when it has ended."""
        retry = _eventually(
            lambda: next((run for run in self.runs() if run["parentRunId"] == run_id), None),
            seconds,
            f"run {run_id} is retried",
        )
        return self.finished(retry["runId"], seconds)

    def quiet(self) -> None:
        """Wait until no launched run is on its way; of a command line's that was killed nobody knows yet."""

        def ended() -> bool:
            return all(run["status"] not in UNFINISHED or run["repositoryOrigin"] is None for run in self.runs())

        _eventually(ended, 240, "all launched runs end")

    def messages(self, run_id: str) -> str:
        """What a run's event log says."""
        events = self.graphql(EVENTS, run=run_id)["logsForRun"]["events"]
        return "\n".join(event["message"] for event in events if event)

    def execute(self, *command: str, workload: str = "deploy/code-location", stdin: str | None = None) -> str:
        """The output of a command in a pod."""
        return _kubectl("exec", *(["-i"] if stdin is not None else []), workload, "--", *command, stdin=stdin)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A command in the code location's pod that runs beside the test."""
        words = ["kubectl", "-n", NAMESPACE, "exec", "-i", "deploy/code-location", "--", *command]
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def pod_of(self, run_id: str) -> str | None:
        """The pod of a launched run, if it is running."""
        selector = f"--selector=dagster/run-id={run_id}"
        pods = _kubectl("get", "pods", selector, "--field-selector=status.phase=Running", "--output=name")
        return pods.split()[0] if pods.split() else None

    def kill_pod_of(self, run_id: str) -> None:
        """Kill a run's pod, at once and for good."""
        pod = self.pod_of(run_id)
        assert pod is not None, state()
        _kubectl("delete", pod, "--force", "--grace-period=0")

    def produce(self, count: int) -> None:
        """Send events with the producer, from within the cluster."""
        self.execute("python", "-m", "producer", "--count", str(count))

    def witness(self, root: str = "/data") -> dict[str, Any]:
        """What the topic and the tables under a root hold, see witness.py."""
        found: dict[str, Any] = json.loads(self.execute("env", f"LAKEHOUSE_ROOT={root}", "python", "-", stdin=WITNESS))
        return found

    def assert_promises(self) -> dict[str, Any]:
        """Every record is in Bronze once and accounted for, each event in Silver once, Gold is what they say."""
        found = self.witness()
        assert found["gold"] == [
            [kind, total, pytest.approx(mean, abs=1e-9), north] for kind, total, mean, north in found["recomputed"]
        ], found
        assert {name: found[name] for name in ("lost", "made up", "repeated", "unaccounted", "twice in Silver")} == {
            "lost": 0,
            "made up": 0,
            "repeated": 0,
            "unaccounted": 0,
            "twice in Silver": 0,
        }
        return found

    def gold(self) -> dict[str, int]:
        """Events per type, as the file on the volume says; empty while there is none."""
        code = (
            "import json, pathlib, pyarrow.parquet as pq; p = pathlib.Path('/data/gold/stats'); "
            "print(json.dumps({r['type']: r['total'] for r in pq.read_table(p).to_pylist()} if p.exists() else {}))"
        )
        totals: dict[str, int] = json.loads(self.execute("python", "-c", code))
        return totals


@pytest.fixture(scope="session")
def kubectl() -> Callable[..., str]:
    """What `kubectl` says in the namespace; an error carries what it complained of."""
    return _kubectl


@pytest.fixture(scope="session")
def make() -> Callable[..., None]:
    """A verb of the Makefile, with its settings."""
    return _make


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """The first true answer of a function, asked for at most some seconds."""
    return _eventually


@pytest.fixture(scope="session")
def reachable() -> None:
    """There is a cluster, and the namespace in it is free or was made by these tests, which purge it."""
    asked = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        assert "CI" not in os.environ, f"no cluster answers, and CI must have one: {asked.stderr}"
        pytest.skip(f"no cluster answers (KUBECONFIG): {asked.stderr.strip()}")
    held = subprocess.run(["kubectl", "get", "namespace", NAMESPACE, "--show-labels"], capture_output=True, text=True)
    if held.returncode == 0:
        assert OURS in held.stdout, (
            f"The cluster has a namespace {NAMESPACE} that these tests did not make, and they would delete it. "
            f"If it may go: kubectl label namespace {NAMESPACE} {OURS}"
        )


@pytest.fixture(scope="session")
def deployed() -> Iterator[list[Cluster]]:
    """What is deployed now, which modules with the same overlay share: one, or none yet."""
    now: list[Cluster] = []
    yield now
    for cluster in now:
        cluster.close()


@pytest.fixture(scope="module")
def cluster(reachable: None, deployed: list[Cluster], request: pytest.FixtureRequest) -> Cluster:
    """The overlay that the test module names; the first such module gets it in an empty namespace."""
    overlay = request.module.OVERLAY
    if not deployed or deployed[-1].overlay != overlay:
        _make("undeploy", OVERLAY=overlay, PURGE="yes")
        _kubectl("create", "namespace", NAMESPACE)
        _kubectl("label", "namespace", NAMESPACE, OURS)
        _make("deploy", OVERLAY=overlay)
        deployed.append(Cluster(overlay))
    return deployed[-1]


@contextmanager
def _beside(cluster: Cluster, program: str, argument: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program in the cluster, once it has said its first word; it ends with the block."""
    process = cluster.start("python", "-c", program, argument)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() in (b"watching", b"held")
        yield process
    finally:
        process.communicate()


@pytest.fixture
def a_new_file(cluster: Cluster) -> Callable[[str], Any]:
    """A process that ends as soon as the volume has a new file that matches a pattern."""
    return lambda pattern: _beside(cluster, WATCH, pattern)


@pytest.fixture
def lease_held(cluster: Cluster) -> Callable[[str], Any]:
    """Holds the lease of a table, by its lock file, as another writer would."""
    return lambda lock: _beside(cluster, HOLD, lock)
