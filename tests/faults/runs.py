"""Runs of `refresh`, each in a process of its own, to be killed; not a test, but what the fault harness starts.

Every line of standard input asks for a run. It is forked from this process, which has imported everything and started
nothing: a run costs what it does, and not again its imports. For each, standard output says `started PID` and
`ended STATUS` (of `waitpid`). Arguments: lake root, bootstrap servers, topic, SPARK_REMOTE or "-", and the most
records that this process writes itself for the engine.
"""

import os
import sys
import warnings
from pathlib import Path

import dagster as dg
import dagster_pyspark
import grpc
import pysail.spark
import pyspark.sql.connect.functions
import pyspark.sql.connect.session
import pyspark.sql.connect.window

from lakehouse_dagster.definitions import defs
from resources.delta import DeltaIOManager
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource

IMPORTED_FOR_THE_RUNS = (dagster_pyspark, grpc, pysail.spark, pyspark.sql.connect)
# The allocators of Arrow and delta-rs are made for forks, and start their threads anew in the child; others' would
# be missing there, with whatever locks they hold.
HARMLESS_THREADS = {"jemalloc_bg_thd"}


def main() -> None:
    root, servers, topic, remote, most = sys.argv[1:]
    spark = SparkResource(remote=None if remote == "-" else remote, home=str(Path(root).parent / "spark"))
    refresh = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        resources={
            "kafka": KafkaResource(bootstrap_servers=servers, topic=topic, group="killed", broker_home="not used"),
            "delta": DeltaIOManager(root=root, spark=spark, max_collected_records=int(most)),
            "parquet": ParquetIOManager(root=root),
        },
        executor=dg.in_process_executor,
    ).resolve_job_def("refresh")
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    print("ready", flush=True)
    for _ in sys.stdin:
        threads = {Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")}
        started = threads - HARMLESS_THREADS - {Path("/proc/self/comm").read_text().strip()}
        assert not started, f"a fork would lack the threads {started}"
        run = os.fork()
        if not run:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os._exit(0 if succeeds(refresh) else 1)
        print(f"started {run}", flush=True)
        print(f"ended {os.waitpid(run, 0)[1]}", flush=True)


def succeeds(job: dg.JobDefinition) -> bool:
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(instance=instance, raise_on_error=False).success
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False


main()
