"""A writer that takes no lease, to see what the lease is for; not a test, but what tests start.

As the pipeline does, it reads a mark, and appends a row with the next number of that mark in one commit. It says
`ready`, begins when standard input closes, and prints JSON: the numbers that it was told are committed, and how often
which error refused it. Arguments: table, name of the mark, seconds to go on, URL of Apache Spark or "-" for delta-rs,
own name.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake


def by_delta_rs() -> Callable[[DeltaTable, int], None]:
    def append(table: DeltaTable, number: int) -> None:
        marked = CommitProperties(app_transactions=[Transaction(mark, number)], max_commit_retries=15)
        rows = pa.table({"number": pa.array([number], pa.int64()), "writer": [name]})
        write_deltalake(table, rows, mode="append", commit_properties=marked)

    return append


def by_spark() -> Callable[[DeltaTable, int], None]:
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(engine).getOrCreate()

    def append(_: DeltaTable, number: int) -> None:
        rows = session.range(1).selectExpr(f"CAST({number} AS BIGINT) AS number", f"'{name}' AS writer")
        writer = rows.write.format("delta").mode("append")
        writer.option("txnAppId", mark).option("txnVersion", number).save(path)

    session.range(1).count()
    return append


path, mark, seconds, engine, name = sys.argv[1:]
append = by_delta_rs() if engine == "-" else by_spark()
committed, refused = [], Counter[str]()
print("ready", flush=True)
sys.stdin.read()
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    try:
        table = DeltaTable(path)
        number = (table.transaction_version(mark) or 0) + 1
        append(table, number)
        committed.append(number)
    except Exception as error:
        refused[type(error).__name__] += 1
print(json.dumps({"writer": name, "committed": committed, "refused": refused}))
