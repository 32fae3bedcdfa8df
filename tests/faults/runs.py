"""Runs of `refresh`, each in a process of its own, to be killed; not a test, but what the fault harness starts.

Every line of standard input asks for a run, by the seconds that it may wait for a lease. It is forked from this
process, which has imported everything and started nothing: a run costs what it does, and not again its imports. For
each, standard output says `started PID` and `ended PID STATUS` (of `waitpid`). Arguments: lake root, bootstrap servers,
topic, SPARK_REMOTE or "-", and the most records that a run writes itself for the engine.
"""

import functools
import importlib
import os
import selectors
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from lakehouse_dagster.definitions import defs
from resources.delta import DeltaIOManager
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource

# The allocators of Arrow and delta-rs are made for forks, and start their threads anew in the child; others' would
# be missing there, with whatever locks they hold.
HARMLESS_THREADS = {"jemalloc_bg_thd"}


def main() -> None:
    root = Path(sys.argv[1])
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    with tempfile.TemporaryDirectory() as scratch:
        rehearse(Path(scratch, "lake"))
    print("ready", flush=True)
    running: dict[int, int] = {}
    with selectors.DefaultSelector() as news:
        news.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in news.select():
                if key.fileobj is not sys.stdin:
                    process = running.pop(key.fd)
                    print(f"ended {process} {os.waitpid(process, 0)[1]}", flush=True)
                    news.unregister(key.fd)
                    os.close(key.fd)
                elif order := sys.stdin.buffer.raw.readline():
                    process = fork(functools.partial(succeeds, job(root, patience=float(order))))
                    end = os.pidfd_open(process)
                    running[end] = process
                    news.register(end, selectors.EVENT_READ)
                    print(f"started {process}", flush=True)
                else:
                    return


def job(root: Path, patience: float = 3600) -> dg.JobDefinition:
    servers, topic, remote, most = sys.argv[2:]
    spark = SparkResource(remote=None if remote == "-" else remote, home=str(root.parent / "spark"))
    return dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=defs.jobs,
        resources={
            "kafka": KafkaResource(bootstrap_servers=servers, topic=topic, group="killed", broker_home="not used"),
            "delta": DeltaIOManager(
                root=str(root), spark=spark, max_collected_records=int(most), lease_patience_seconds=patience
            ),
            "parquet": ParquetIOManager(root=str(root)),
        },
        executor=dg.in_process_executor,
    ).resolve_job_def("refresh")


def rehearse(root: Path) -> None:
    """Import what a run imports, by the example of one on another lake."""
    list_of_modules = root.with_name("modules")

    def tell() -> bool:
        good = succeeds(job(root))
        list_of_modules.write_text("\n".join(sys.modules))
        return good

    _, status = os.waitpid(fork(tell), 0)
    assert status == 0, "the rehearsal failed"
    for name in list_of_modules.read_text().splitlines():
        if name not in sys.modules and not name.startswith("__"):
            try:
                importlib.import_module(name)
            except ImportError:  # made up by a library, and no module of a file
                continue


def fork(run: Callable[[], bool]) -> int:
    """The process that does `run`, and ends by its answer."""
    threads = {Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")}
    started = threads - HARMLESS_THREADS - {Path("/proc/self/comm").read_text().strip()}
    assert not started, f"a fork would lack the threads {started}"
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os._exit(0 if run() else 1)
    return process


def succeeds(refresh: dg.JobDefinition) -> bool:
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            return refresh.execute_in_process(instance=instance, raise_on_error=False).success
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return False


main()
