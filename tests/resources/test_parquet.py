"""Gold's Parquet file: replaced whole, whoever reads meanwhile."""

import os
import subprocess
import sys
import threading

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources.delta import TableError
from resources.parquet import ParquetIOManager

KEY = dg.AssetKey(["gold", "stats"])


class Result:
    """What the engine returns: something with Arrow rows."""

    def __init__(self, table):
        self.table = table

    def toArrow(self):
        return self.table


def stats(version, types=("bike", "car")):
    """Rows that all carry the same version, so that a mixture shows."""
    return pa.table({"type": list(types), "total": [version] * len(types), "max_lat": [float(version)] * len(types)})


@pytest.fixture
def lake(tmp_path):
    return ParquetIOManager(root=str(tmp_path))


@pytest.fixture
def write(lake):
    """Materialize rows; the metadata it gave."""

    def materialize(rows):
        with dg.build_output_context(asset_key=KEY, run_id="run") as context:
            lake.handle_output(context, Result(rows))
            return {name: value.value for name, value in context.consume_logged_metadata().items()}

    return materialize


def file(lake):
    return lake.path(KEY) / "stats.parquet"


def test_the_table_is_a_folder_with_one_plain_file(lake, write):
    metadata = write(stats(1))
    assert [entry.name for entry in lake.path(KEY).iterdir()] == ["stats.parquet"]
    assert pq.read_table(lake.path(KEY)).to_pylist() == stats(1).to_pylist()
    assert (metadata["rows written"], metadata["dagster/row_count"]) == (2, 2)
    assert "| type | total | max_lat |" in metadata["preview"]


def test_a_new_version_replaces_the_old_one(lake, write):
    write(stats(1))
    write(stats(2, ("bike", "car", "scoot")))
    assert lake.load_input(dg.build_input_context(asset_key=KEY)).equals(stats(2, ("bike", "car", "scoot")))


def test_equal_rows_are_not_written_again(lake, write):
    write(stats(1))
    before = file(lake).stat()
    assert write(stats(1))["rows written"] == 0
    assert (file(lake).stat().st_ino, file(lake).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_a_killed_writer_staged_does_not_matter(lake, write, tmp_path):
    write(stats(1))
    (tmp_path / "gold/.stats.staged").write_bytes(b"half a fi")
    assert pq.read_table(lake.path(KEY)).num_rows == 2
    write(stats(2))
    assert pq.read_table(lake.path(KEY))["total"].to_pylist() == [2, 2]


def test_a_foreign_file_in_the_folder_is_left_alone(lake, write):
    write(stats(1))
    (lake.path(KEY) / "part-0.parquet").write_bytes(b"mine")
    with pytest.raises(TableError, match=r"part-0\.parquet, which is not ours.*LAKEHOUSE_ROOT"):
        write(stats(2))
    assert pq.read_table(file(lake))["total"].to_pylist() == [1, 1]


def test_a_file_that_cannot_be_read_is_left_alone(lake, write):
    lake.path(KEY).mkdir(parents=True)
    file(lake).write_bytes(b"no parquet")
    with pytest.raises(TableError, match="cannot be read"):
        write(stats(1))
    assert file(lake).read_bytes() == b"no parquet"


def test_reading_what_does_not_exist_names_what_to_do(lake):
    with pytest.raises(TableError, match="materialize gold/stats first"):
        lake.load_input(dg.build_input_context(asset_key=KEY))


@pytest.fixture
def replacing(write):
    """Version after version, as fast as can be, until the test is over; at most 20,000."""
    write(stats(0))
    over = threading.Event()

    def replace():
        for version in range(1, 20_000):
            if over.is_set():
                return
            write(stats(version))

    writer = threading.Thread(target=replace)
    writer.start()
    yield
    over.set()
    writer.join()


@pytest.mark.usefixtures("replacing")
@pytest.mark.parametrize("reader", ["duckdb", "pyarrow"])
def test_a_reader_sees_one_whole_version(lake, reader):
    for _ in range(200):
        if reader == "duckdb":
            seen = duckdb.sql(f"SELECT total, max_lat FROM '{lake.path(KEY)}/*.parquet'").fetchall()
        else:
            seen = [tuple(row.values())[1:] for row in pq.read_table(lake.path(KEY)).to_pylist()]
        assert len(seen) == 2
        assert len(set(seen)) == 1


SPARK_READER = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
for _ in range(3):
    rows = spark.read.parquet(sys.argv[1]).collect()
    assert len(rows) == 2 and len({(row.total, row.max_lat) for row in rows}) == 1, rows
print("whole", [field.simpleString() for field in spark.read.parquet(sys.argv[1]).schema])
"""


def test_a_plain_spark_session_without_delta_reads_it(lake, write):
    write(stats(1))
    read = [sys.executable, "-c", SPARK_READER, str(lake.path(KEY))]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    done = subprocess.run(read, env=plain, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "whole ['type:string', 'total:bigint', 'max_lat:double']"
