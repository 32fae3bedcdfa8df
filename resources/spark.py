"""PySpark over Spark Connect, on one of three engines chosen by one setting."""

import itertools
import secrets
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

from resources.jvm import ChildProcess, free_port, jars, java

if TYPE_CHECKING:
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

DELTA_JAR = "io.delta:delta-spark_4.2_2.13:4.4.0"
CONNECT_TIMEOUT_SECONDS = 10
START_TIMEOUT_SECONDS = 90

# Settings of Apache Spark for a table that is some files on a few cores; Sail has no use for them.
LOCAL_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.connect.grpc.binding.address": "127.0.0.1",
}


class EngineError(Exception):
    """The engine cannot be reached or does not start; the message names SPARK_REMOTE."""


class SparkResource(dg.ConfigurableResource[Any]):
    """A Spark session, opened at its first use and closed at the end of the run.

    `remote` unset is Sail, a Spark Connect server inside this process; `local[N]` or `local[*]` is Apache Spark in
    a JVM beside it; `sc://host:port` is a Spark Connect server (its URL:
    https://github.com/apache/spark/blob/master/sql/connect/docs/client-connection-string.md).
    """

    remote: str | None = None
    home: str

    _session: "SparkSession | None" = PrivateAttr(default=None)
    _sail: "SparkConnectServer | None" = PrivateAttr(default=None)
    _jvm: ChildProcess | None = PrivateAttr(default=None)

    @property
    def distributed(self) -> bool:
        """Whether the engine is Apache Spark, which writes large results itself and in parallel."""
        return self.remote is not None

    @property
    def session(self) -> "SparkSession":
        """The session of this run, in UTC.

        Raises:
            EngineError: `remote` is no address of an engine, or the engine does not answer or does not start.
            JavaError: `remote` is `local` and there is no Java.
        """
        if self._session is None:
            # Here, so that loading the definitions and asking Kafka do not pay for PySpark.
            from dagster_pyspark import LazyPySparkResource

            url = self._url()
            pyspark = LazyPySparkResource(spark_config={"spark.remote": url, "spark.sql.session.timeZone": "UTC"})
            self._session = pyspark.spark_session
        return self._session

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the session, then the engine if it is ours: the other way round the client would wait for it."""
        if self._session is not None:
            self._session.stop()
            self._session = None
        if self._sail is not None:
            self._sail.stop()
            self._sail = None
        if self._jvm is not None:
            self._jvm.stop()
            self._jvm = None

    def _url(self) -> str:
        if self.remote is None:
            return self._start_sail()
        if self.remote.startswith("local"):
            return self._start_jvm(self.remote)
        if not self.remote.startswith("sc://"):
            raise EngineError(f"SPARK_REMOTE is {self.remote!r}, and has to be unset, local[*] or sc://host:port")
        if not answers(self.remote, CONNECT_TIMEOUT_SECONDS):
            raise EngineError(
                f"No Spark Connect server answers at {self.remote} (SPARK_REMOTE). Is it up, and the port right?"
            )
        return self.remote

    def _start_sail(self) -> str:
        from pysail.spark import SparkConnectServer

        self._sail = SparkConnectServer("127.0.0.1", 0)
        self._sail.start(background=True)
        host, port = self._sail.listening_address
        return f"sc://{host}:{port}"

    def _start_jvm(self, master: str) -> str:
        home = Path(self.home).absolute()
        home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        token = secrets.token_urlsafe()
        self._jvm = ChildProcess(
            connect_server_command(master, port, home),
            home / "spark.log",
            {"SPARK_CONNECT_AUTHENTICATE_TOKEN": token},
        )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        url = f"sc://localhost:{port}/;token={token}"
        while self._jvm.running and time.monotonic() < deadline:
            if answers(url, 1):
                return url
        raise EngineError(
            f"Apache Spark did not start (SPARK_REMOTE={master}); {self._jvm.log} ends:\n{self._jvm.tail()}"
        )


def connect_server_command(master: str, port: int, work: Path) -> list[str]:
    """The command of an Apache Spark Connect server with Delta, from the installed `pyspark`, on loopback.

    Raises:
        JavaError: there is no Java, or Delta's jars cannot be had.
    """
    import pyspark

    spark_home = Path(pyspark.__file__).parent
    java_home = java().resolve().parent.parent
    conf = LOCAL_CONF | {
        "spark.jars": ",".join(map(str, delta_jars())),
        "spark.connect.grpc.binding.port": str(port),
        "spark.sql.warehouse.dir": str(work / "warehouse"),
    }
    return [
        # PySpark's own variables, meant for us, would have the server connect to itself.
        *("/usr/bin/env", "-u", "SPARK_REMOTE", "-u", "SPARK_CONNECT_MODE_ENABLED"),
        *(f"JAVA_HOME={java_home}", f"PYSPARK_PYTHON={sys.executable}"),
        *(str(spark_home / "bin/spark-submit"), "--master", master),
        *(word for key, value in conf.items() for word in ("--conf", f"{key}={value}")),
        *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"),
    ]


def delta_jars() -> list[Path]:
    """Delta for Apache Spark, without the jars that the installed `pyspark` ships.

    Raises:
        JavaError: they cannot be had.
    """
    import pyspark

    shipped = {_artifact(jar) for jar in Path(pyspark.__file__).parent.glob("jars/*.jar")}
    return [jar for jar in jars(DELTA_JAR) if _artifact(jar) not in shipped]


def answers(url: str, timeout_seconds: float) -> bool:
    """Whether a Spark Connect server is ready at `url` within some seconds."""
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder

    with DefaultChannelBuilder(url).toChannel() as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout_seconds)
        except grpc.FutureTimeoutError:
            return False
    return True


def _artifact(jar: Path) -> str:
    """The artifact of a jar's file name, without its version: `zstd-jni` of `zstd-jni-1.5.7-7.jar`."""
    words = jar.stem.split("-")
    return "-".join(itertools.takewhile(lambda word: not word[:1].isdigit(), words))


if __name__ == "__main__":
    for jar in delta_jars():
        shutil.copy(jar, sys.argv[1])
