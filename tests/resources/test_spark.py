"""The engines' sessions: opened at first use, gone with the run, and what is said when there is none."""

import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest

from resources.jvm import free_port
from resources.spark import EngineError, SparkResource, connect_server_command


def close(resource):
    resource.teardown_after_execution(dg.build_init_resource_context())


def test_a_closed_resource_opens_again(tmp_path):
    resource = SparkResource(home=str(tmp_path))
    for _ in range(2):
        assert resource.session.range(3).count() == 3
        close(resource)


def test_a_local_jvm_is_gone_with_the_resource(tmp_path):
    resource = SparkResource(remote="local[1]", home=str(tmp_path))
    before = set(psutil.Process().children())
    assert resource.session.range(3).count() == 3
    (supervisor,) = set(psutil.Process().children()) - before
    (java,) = [child for child in supervisor.children(recursive=True) if "java" in child.name()]
    close(resource)
    assert not java.is_running()


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("spark://host:7077", "SPARK_REMOTE is 'spark://host:7077', and has to be unset, local"),
        ("sc://127.0.0.1:{port}", "No Spark Connect server answers at sc://127.0.0.1:.*SPARK_REMOTE"),
    ],
)
def test_an_engine_that_cannot_be_reached_is_named_with_the_setting(tmp_path, remote, said):
    resource = SparkResource(remote=remote.format(port=free_port()), home=str(tmp_path))
    started = time.monotonic()
    with pytest.raises(EngineError, match=said):
        _ = resource.session
    assert time.monotonic() - started < 20
    close(resource)


def test_deltas_jars_are_added_without_those_that_spark_ships(tmp_path):
    command = connect_server_command("local[1]", 1, tmp_path)
    (added,) = [word.removeprefix("spark.jars=") for word in command if word.startswith("spark.jars=")]
    names = [jar.rsplit("/", 1)[-1] for jar in added.split(",")]
    assert any(name.startswith("delta-spark_4.2_2.13-") for name in names)
    assert not any(name.startswith(("hadoop-", "parquet-", "scala-library", "jackson-core")) for name in names)


FAILING = """
import sys
import dagster as dg
from resources.spark import SparkResource

@dg.op
def broken(spark: SparkResource):
    spark.session.range(3).count()
    raise RuntimeError("broken on purpose")

@dg.job(resource_defs={"spark": SparkResource(home=sys.argv[1])})
def breaking():
    broken()

breaking.execute_in_process()
"""


def test_the_process_of_a_failing_run_ends_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "broken on purpose" in done.stderr
