"""A reader of a lake that is being written, until standard input closes; not a test, but what the harness starts.

It knows nothing of the pipeline: Parquet by pyarrow and by DuckDB, Delta by deltalake. A read counts as half-written if
it fails although the table was there before, or if it has fewer rows or events than an earlier one, since every table
here only ever grows. Prints JSON: how many reads, and which were half-written. Argument: lake root.
"""

import json
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from deltalake import DeltaTable

# Between two rounds of reads, several times as long as one takes: the machine is there for the runs.
BREATHS = 3
COLUMNS = ["type", "total", "avg_battery", "max_lat"]
root = Path(sys.argv[1])


def events_by_arrow() -> int:
    rows = pq.read_table(root / "gold/stats")
    assert rows.column_names == COLUMNS, rows.column_names
    return sum(rows["total"].to_pylist())


def events_by_duckdb() -> int:
    found = duckdb.sql(f"SELECT {', '.join(COLUMNS)} FROM '{root}/gold/stats/*.parquet'").fetchall()
    return sum(row[1] for row in found)


def delta_rows(table: str, column: str) -> Callable[[], int]:
    return lambda: DeltaTable(str(root / table)).to_pyarrow_table(columns=[column]).num_rows


reads = {
    "gold/stats by pyarrow": events_by_arrow,
    "gold/stats by DuckDB": events_by_duckdb,
    "bronze/vehicles_events": delta_rows("bronze/vehicles_events", "offset"),
    "silver/vehicles_events": delta_rows("silver/vehicles_events", "event_id"),
    "silver/rejected_events": delta_rows("silver/rejected_events", "reason"),
    "gold/daily_stats": delta_rows("gold/daily_stats", "total"),
}
seen: dict[str, int] = {}
counted = 0
breath = 0.1
half_written = []
while not select.select([sys.stdin], [], [], breath)[0]:
    begun = time.monotonic()
    for table, read in reads.items():
        try:
            size = read()
        except Exception as error:
            if table in seen:
                half_written.append(f"{table}: {type(error).__name__}: {error}")
            continue
        counted += 1
        if size < seen.get(table, 0):
            half_written.append(f"{table}: {size} after {seen[table]}")
        seen[table] = max(size, seen.get(table, 0))
    breath = BREATHS * (time.monotonic() - begun)
print(json.dumps({"reads": counted, "half-written": half_written}))
