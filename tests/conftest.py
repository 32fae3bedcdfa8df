"""Real servers for the tests: one Kafka broker and one Apache Spark for the session, a new topic and lake for each."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import DeltaTable
from playwright.sync_api import Page, expect, sync_playwright

from lakehouse_dagster.definitions import defs
from resources.broker import EmbeddedBroker
from resources.delta import DeltaIOManager
from resources.jvm import ChildProcess, free_port
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource, answers, connect_server_command

PARTITIONS = 3
# Quiet, in a container too, and with no way to the internet: Dagster's pages ask for a script from there.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


@pytest.fixture(scope="session", autouse=True)
def quick_jvms() -> Iterator[None]:
    """JVMs that start and warm up quickly: none lives long enough here to earn back what better code costs."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        yield


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a broker that lives as long as the session."""
    with EmbeddedBroker(tmp_path_factory.mktemp("kafka")).serving("unused") as address:
        yield address


@pytest.fixture
def topic(broker: str) -> str:
    """A new topic with three partitions."""
    name = f"test-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(30)
    KafkaResource(bootstrap_servers=broker, topic=name, group="", broker_home="").state()  # waits for its leaders
    return name


@pytest.fixture
def kafka(broker: str, topic: str) -> KafkaResource:
    """The new topic, as the pipeline sees it."""
    return KafkaResource(bootstrap_servers=broker, topic=topic, group=f"group-{topic}", broker_home="not used")


@pytest.fixture(scope="session")
def spark_connect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an Apache Spark Connect server that lives as long as the session."""
    home = tmp_path_factory.mktemp("spark")
    port = free_port()
    url = f"sc://localhost:{port}"
    server = ChildProcess(connect_server_command("local[2]", port, home), home / "spark.log")
    try:
        assert any(answers(url, 1) for _ in range(90) if server.running), server.tail()
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="session", params=["sail", "spark"])
def remote(request: pytest.FixtureRequest) -> str | None:
    """SPARK_REMOTE of each engine: Sail in the process, and Apache Spark."""
    if request.param == "sail":
        return None
    url: str = request.getfixturevalue("spark_connect_server")
    return url


# Not for the whole session: PySpark gives the session that is open to whoever asks, so that a run of the pipeline
# would end up on this one, and close it.
@pytest.fixture(scope="module")
def engine(remote: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkResource]:
    """A session of each engine."""
    resource = SparkResource(remote=remote, home=str(tmp_path_factory.mktemp("engine")))
    try:
        yield resource
    finally:
        resource.teardown_after_execution(dg.build_init_resource_context())


@pytest.fixture
def send(broker: str, topic: str) -> Callable[..., None]:
    """Send raw values (or (key, value, headers) tuples) to the topic, to `partition`, and wait until they are there."""

    def produce(*values: Any, partition: int = 0, **config: Any) -> None:
        producer = Producer({"bootstrap.servers": broker, "message.max.bytes": 10_000_000, **config})
        for value in values:
            key, body, headers = value if isinstance(value, tuple) else (None, value, None)
            producer.produce(topic, key=key, value=body, headers=headers, partition=partition)
        assert producer.flush(30) == 0

    return produce


@dataclass(frozen=True)
class Lakehouse:
    """The whole pipeline on a lake of its own, run in this process."""

    root: Path
    kafka: KafkaResource
    remote: str | None
    instance: dg.DagsterInstance
    max_collected_records: int = 100_000

    def run(self, job: str = "refresh", **arguments: Any) -> dg.ExecuteInProcessResult:
        """Run a job of the code location on this lake."""
        spark = SparkResource(remote=self.remote, home=str(self.root.parent / "spark"))
        delta = DeltaIOManager(root=str(self.root), spark=spark, max_collected_records=self.max_collected_records)
        resources = {"kafka": self.kafka, "delta": delta, "parquet": ParquetIOManager(root=str(self.root))}
        with_resources = dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=defs.jobs,
            resources=resources,
            executor=dg.in_process_executor,
        )
        return with_resources.resolve_job_def(job).execute_in_process(instance=self.instance, **arguments)

    def version(self, table: str) -> int:
        """The version of a Delta table."""
        return DeltaTable(str(self.root / table)).version()

    def rows(self, table: str) -> pa.Table:
        """All rows of a Delta table, read without the pipeline, ordered by where they came from."""
        found = pa.table(DeltaTable(str(self.root / table)).to_pyarrow_table())
        order = [name for name in ("batch", "partition", "offset", "event_date", "type") if name in found.column_names]
        return found.sort_by([(name, "ascending") for name in order])


@pytest.fixture
def lakehouse(tmp_path: Path, kafka: KafkaResource, remote: str | None) -> Iterator[Lakehouse]:
    """The pipeline over a new topic and an empty lake, on each engine."""
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "dagster")) as instance:
        yield Lakehouse(tmp_path / "lake", kafka, remote, instance)


@pytest.fixture
def browser_page() -> Iterator[Page]:
    """A page in a real browser, for a Dagster UI on this machine; it declines what the UI offers at first sight."""
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("Chromium is not installed (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        invitation = page.get_by_text("Join the Dagster community")
        page.add_locator_handler(invitation, lambda: page.get_by_role("button", name="Skip", exact=True).click())
        yield page
        browser.close()
