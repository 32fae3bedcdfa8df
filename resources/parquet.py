"""Small results as one plain Parquet file, replaced whole."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from resources.delta import TableError
from resources.lease import lease
from resources.table_metadata import column_schema, preview

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class ParquetIOManager(dg.ConfigurableIOManager):
    """A table is the folder of its asset key with one file in it, `<root>/<layer>/<table>/<table>.parquet`.

    A new version is written beside the folder and renamed over the file, which POSIX makes atomic: a reader opens
    the old version or the new one, whole. Rows that equal the present ones are not written again. A folder with
    anything else in it is refused.
    """

    root: str
    lease_patience_seconds: float = 3600

    def path(self, key: dg.AssetKey) -> Path:
        """The folder of an asset's table."""
        return Path(self.root, *key.path)

    def load_input(self, context: dg.InputContext) -> pa.Table:
        """The upstream table.

        Raises:
            TableError: it does not exist yet, or cannot be read.
        """
        path = self.path(context.asset_key)
        found = _read(path)
        if found is None:
            raise TableError(
                f"There is no table at {path} yet: materialize {context.asset_key.to_user_string()} first."
            )
        return found

    def handle_output(self, context: dg.OutputContext, obj: "DataFrame") -> None:
        """Make the table the DataFrame's rows, and tell Dagster what they are.

        Raises:
            TableError: the folder holds something else, or its file cannot be read or replaced.
            LeaseTimeout: another run kept the table for longer than `lease_patience_seconds`.
        """
        path = self.path(context.asset_key)
        with lease(path, f"Dagster run {context.run_id}", self.lease_patience_seconds, context.log.info) as waited:
            started = time.monotonic()
            present = _read(path)
            rows = obj.toArrow()
            computed = time.monotonic()
            changed = present is None or not rows.equals(present)
            if changed:
                _replace(path, rows)
            context.add_output_metadata(
                {
                    "rows written": rows.num_rows if changed else 0,
                    "dagster/row_count": rows.num_rows,
                    "dagster/uri": str(path),
                    "dagster/column_schema": column_schema(rows.schema),
                    "preview": preview(rows),
                    "seconds": {
                        "waiting for the lease": round(waited, 3),
                        "computing": round(computed - started, 3),
                        "committing": round(time.monotonic() - computed, 3),
                    },
                }
            )


def _file(path: Path) -> Path:
    return path / f"{path.name}.parquet"


def _read(path: Path) -> pa.Table | None:
    file = _file(path)
    foreign = [entry.name for entry in path.iterdir() if entry != file] if path.exists() else []
    if foreign:
        raise TableError(
            f"{path} holds {foreign[0]}, which is not ours. Move it away, or choose another LAKEHOUSE_ROOT."
        )
    if not file.exists():
        return None
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{file} cannot be read, and is left as it is: {error}. Move it away; the next run rebuilds it."
        ) from None


def _replace(path: Path, rows: pa.Table) -> None:
    staged = path.with_name(f".{path.name}.staged")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            # Plain and uncompressed, versions with the same types have the same length, which matters to a reader
            # that lists the folder before one version and opens the file after the next, as Spark can.
            pq.write_table(rows, file, compression="none", use_dictionary=False)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(_file(path))
    except OSError as error:
        raise TableError(f"Cannot write {_file(path)} (LAKEHOUSE_ROOT): {error.strerror}") from None
