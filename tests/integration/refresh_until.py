"""A run of `refresh` that is killed by SIGKILL right after its n-th commit; not a test, but what tests start.

Arguments: lake root, bootstrap servers, topic, SPARK_REMOTE or "-", n; n = 5 is Gold's swap, staged but not done.
"""

import os
import signal
import sys
from pathlib import Path

import dagster as dg

from lakehouse_dagster.definitions import defs
from resources.delta import DeltaIOManager
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource

root, servers, topic, remote, nth = sys.argv[1:]
commits = 0
write, replace = DeltaIOManager._write, Path.replace


def killing_write(self, *arguments):
    global commits
    written = write(self, *arguments)
    commits += 1
    if commits == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)
    return written


def killing_replace(self, target):
    if int(nth) == 5 and Path(target).parent.name == "stats":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)


DeltaIOManager._write = killing_write
Path.replace = killing_replace

spark = SparkResource(remote=None if remote == "-" else remote, home=str(Path(root).parent / "spark"))
dg.Definitions(
    assets=defs.assets,
    asset_checks=defs.asset_checks,
    jobs=defs.jobs,
    resources={
        "kafka": KafkaResource(bootstrap_servers=servers, topic=topic, group="killed", broker_home="not used"),
        "delta": DeltaIOManager(root=root, spark=spark),
        "parquet": ParquetIOManager(root=root),
    },
    executor=dg.in_process_executor,
).resolve_job_def("refresh").execute_in_process()
