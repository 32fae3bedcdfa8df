"""What a lake whose files were damaged says, and that it does again what it should once that is mended."""

import shutil

import pytest

from resources.delta import TableError

pytestmark = pytest.mark.faults
VALUES = [
    b'{"event_id": "00000000-0000-4000-8000-00000000000%d", "vehicle_id": "v", "type": "car", "battery": 50, "lat": 1, '
    b'"lon": 2, "event_time": "2026-01-01T00:00:00Z"}' % number
    for number in range(9)
]
LAYERS = ["bronze", "silver", "gold"]


def told(failed, op):
    """What a failed run says of a step."""
    assert not failed.success
    return failed.failure_data_for_node(op).error


def data_file(lakehouse, table):
    return next((lakehouse.root / table).rglob("*.parquet"))


def test_a_missing_data_file_is_named_and_the_run_after_its_return_goes_on(lakehouse, send, tmp_path):
    send(VALUES[0], b"junk")
    assert lakehouse.run().success
    file = data_file(lakehouse, "silver/vehicles_events")
    file.rename(tmp_path / "away")
    send(*VALUES[:2])
    said = told(lakehouse.run(raise_on_error=False), "silver__vehicles_events")
    assert TableError.__name__ in str(said)
    assert f"{file} is missing" in str(said)
    (tmp_path / "away").rename(file)
    assert lakehouse.run().success
    assert [lakehouse.rows(f"silver/{table}").num_rows for table in ("vehicles_events", "rejected_events")] == [2, 2]


@pytest.mark.parametrize("remote", ["sail"], indirect=True)
@pytest.mark.parametrize("first", [0, 1, 2], ids=LAYERS)
def test_a_table_moved_away_with_those_made_from_it_is_built_anew(lakehouse, send, tmp_path, first):
    send(VALUES[0], VALUES[0], b"junk")
    assert lakehouse.run().success
    send(*VALUES[:4])
    assert lakehouse.run().success
    before = {t: lakehouse.rows(t).num_rows for t in ("silver/vehicles_events", "silver/rejected_events")}
    for layer in LAYERS[first:]:
        shutil.move(lakehouse.root / layer, tmp_path / f"away-{layer}")
    assert lakehouse.run().success
    assert {table: lakehouse.rows(table).num_rows for table in before} == before
    assert lakehouse.rows("gold/daily_stats")["total"].to_pylist() == [4]
    assert lakehouse.run("audit").success


@pytest.mark.parametrize("remote", ["sail"], indirect=True)
def test_a_foreign_file_in_a_delta_folder_is_neither_read_nor_touched(lakehouse, send):
    send(VALUES[0], b"junk")
    assert lakehouse.run().success
    foreign = data_file(lakehouse, "bronze/vehicles_events").with_name("foreign.parquet")
    foreign.write_bytes(b"not ours")
    send(VALUES[1])
    assert lakehouse.run().success
    assert lakehouse.rows("bronze/vehicles_events").num_rows == 3
    assert foreign.read_bytes() == b"not ours"
