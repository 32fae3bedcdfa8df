"""Delta tables: rows and marks as one, nothing overwritten that cannot be read."""

import hashlib

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from resources.delta import Commit, DeltaIOManager, Increment, Snapshot, Span, TableDefinition, TableError
from resources.spark import SparkResource

KEY = dg.AssetKey(["silver", "things"])
SCHEMA = pa.schema([("batch", pa.int64()), ("partition", pa.int32()), ("offset", pa.int64()), ("name", pa.string())])
TABLE = TableDefinition(SCHEMA, bloom_filters=("name",))
IDLE = SparkResource(home="never started")


def rows(*places, name="a"):
    return pa.Table.from_pylist(
        [{"batch": batch, "partition": 0, "offset": offset, "name": name} for batch, offset in places], SCHEMA
    )


def commits(*made, **kwargs):
    return Increment(TABLE, lambda _: made, **kwargs)


@pytest.fixture
def lake(tmp_path):
    return DeltaIOManager(root=str(tmp_path), spark=IDLE)


@pytest.fixture
def write(lake):
    """Materialize an increment; the metadata it gave."""

    def materialize(increment, manager=lake):
        with dg.build_output_context(asset_key=KEY, run_id="run") as context:
            manager.handle_output(context, increment)
            return {name: value.value for name, value in context.consume_logged_metadata().items()}

    return materialize


def table(lake):
    return DeltaTable(str(lake.path(KEY)))


def fingerprint(folder):
    """Every file below a folder, by what is in it."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".things"))
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_table_lies_at_the_path_of_its_key(lake, tmp_path):
    assert lake.path(KEY) == tmp_path / "silver/things"


def test_rows_and_marks_are_one_version(lake, write):
    metadata = write(commits(Commit(rows((1, 0), (1, 1)), {"upstream": 1, "other": 7})))
    assert (table(lake).version(), table(lake).count()) == (1, 2)
    assert (table(lake).transaction_version("upstream"), table(lake).transaction_version("other")) == (1, 7)
    assert metadata["rows written"] == metadata["dagster/row_count"] == 2
    assert metadata["table version"] == 1
    assert metadata["offsets"] == {"0": {"from": 0, "to": 1}}
    assert metadata["marks"] == {"upstream": {"from": None, "to": 1}, "other": {"from": None, "to": 7}}
    assert set(metadata["seconds"]) == {"waiting for the lease", "reading", "computing", "committing"}
    assert "| batch | partition | offset | name |" in metadata["preview"]
    assert [column.name for column in metadata["dagster/column_schema"].columns] == SCHEMA.names


def test_each_commit_sees_the_one_before(lake, write):
    def next_batches(things):
        for _ in range(3):
            batch = (things.mark("batch") or 0) + 1
            assert things.count() == batch - 1
            yield Commit(rows((batch, batch)), {"batch": batch})

    assert write(Increment(TABLE, next_batches))["marks"] == {"batch": {"from": None, "to": 3}}
    assert write(commits())["rows written"] == 0
    assert table(lake).count() == 3


def test_marks_move_without_rows_and_without_a_data_file(lake, write):
    write(commits(Commit(rows((1, 0)), {"upstream": 1})))
    files = set(lake.path(KEY).glob("*.parquet"))
    write(commits(Commit(rows(), {"upstream": 2}), Commit(rows(), {"upstream": 3})))
    assert table(lake).transaction_version("upstream") == 3
    assert set(lake.path(KEY).glob("*.parquet")) == files


def test_no_commits_no_version(lake, write):
    write(commits(Commit(rows((1, 0)), {"upstream": 1})))
    before = fingerprint(lake.path(KEY))
    assert write(commits())["table version"] == 1
    assert fingerprint(lake.path(KEY)) == before


def test_overwrite_replaces_the_whole_table(lake, write):
    write(commits(Commit(rows((1, 0), (1, 1)), {"upstream": 1})))
    metadata = write(commits(Commit(rows((2, 5)), {"upstream": 2}), mode="overwrite"))
    assert (metadata["rows written"], metadata["dagster/row_count"]) == (1, 1)
    assert table(lake).to_pyarrow_table()["offset"].to_pylist() == [5]


def test_marks_survive_checkpoint_log_cleanup_compaction_and_vacuum(lake, write):
    for batch in range(1, 6):
        write(commits(Commit(rows((batch, batch)), {"upstream": batch})))
    things = table(lake)
    things.optimize.compact()
    things.create_checkpoint()
    things.cleanup_metadata()
    things.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert table(lake).transaction_version("upstream") == 5
    write(commits(Commit(rows((6, 6)), {"upstream": 6})))
    assert (table(lake).count(), table(lake).transaction_version("upstream")) == (6, 6)


def test_a_writer_that_broke_the_lease_is_noticed_by_the_marks(lake, write):
    write(commits(Commit(rows((1, 0)), {"upstream": 1})))

    def robbed(_):
        marks = CommitProperties(app_transactions=[Transaction("upstream", 2)])
        write_deltalake(str(lake.path(KEY)), rows((2, 1)), mode="append", commit_properties=marks)
        yield Commit(rows((2, 1)), {"upstream": 2})

    with pytest.raises(TableError, match="despite our lease"):
        write(Increment(TABLE, robbed))
    assert table(lake).count() == 2


def test_both_ways_of_writing_make_the_same_table(engine, tmp_path, write):
    """Apache Spark's own writer, where the engine is Apache Spark and collects nothing."""
    landed = rows((1, 0), (1, 1), (2, 2))
    source = tmp_path / "source"
    write_deltalake(str(source), landed)

    def increment(after, upto):
        def made(_):
            frame = engine.session.read.format("delta").load(str(source))
            span = Span("batch", after, upto, 2)
            yield Commit(frame.where(span.where), {"upstream": upto}, span)

        return Increment(TABLE, made)

    for limit in (0, 100):
        # The session is the tests'; a copy made by Dagster would open another.
        lake = DeltaIOManager(root=str(tmp_path / f"lake{limit}"), spark=engine, max_collected_records=limit)
        first = write(increment(0, 1), lake)
        assert (first["rows written"], first["offsets"]) == (2, {"0": {"from": 0, "to": 1}})
        assert write(increment(1, 2), lake)["rows written"] == 1
        assert table(lake).to_pyarrow_table().sort_by("offset").equals(landed)
        assert table(lake).transaction_version("upstream") == 2
        operation = table(lake).history(1)[0]
        assert ("Apache-Spark" in str(operation.get("engineInfo"))) == (engine.distributed and limit == 0)


def test_a_foreign_file_in_the_folder_is_left_alone(lake, write, tmp_path):
    lake.path(KEY).mkdir(parents=True)
    (lake.path(KEY) / "notes.txt").write_text("mine")
    with pytest.raises(TableError, match=r"notes\.txt.*LAKEHOUSE_ROOT"):
        write(commits(Commit(rows((1, 0)), {})))
    assert [file.name for file in lake.path(KEY).iterdir()] == ["notes.txt"]


def test_a_table_with_other_columns_is_left_alone(lake, write):
    write_deltalake(str(lake.path(KEY)), pa.table({"batch": ["text"], "mine": [1]}))
    before = fingerprint(lake.path(KEY))
    with pytest.raises(TableError, match=r"other columns.*batch, mine, name, offset, partition"):
        write(commits(Commit(rows((1, 0)), {})))
    assert fingerprint(lake.path(KEY)) == before


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_log_that_cannot_be_read_is_left_alone(lake, write, mode):
    write(commits(Commit(rows((1, 0)), {"upstream": 1})))
    (lake.path(KEY) / "_delta_log/00000000000000000001.json").write_text("{broken")
    before = fingerprint(lake.path(KEY))
    with pytest.raises(TableError, match=r"cannot be read") as refused:
        write(commits(Commit(rows((2, 1)), {"upstream": 2}), mode=mode))
    assert str(lake.path(KEY)) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert fingerprint(lake.path(KEY)) == before


@pytest.mark.parametrize(
    ("entry", "damage", "told"),
    [
        (1, lambda file: file.write_bytes(file.read_bytes()[:40]), "is damaged"),
        (2, lambda file: file.write_bytes(file.read_bytes()[:40]), "is damaged"),
        (2, lambda file: file.write_bytes(b""), "is empty"),
        (1, lambda file: file.unlink(), "is missing"),
    ],
    ids=["truncated", "the newest truncated", "the newest emptied", "deleted"],
)
def test_a_damaged_log_entry_is_named_and_what_to_do(lake, write, entry, damage, told):
    write(commits(Commit(rows((1, 0)), {"upstream": 1}), Commit(rows((2, 1)), {"upstream": 2})))
    file = lake.path(KEY) / "_delta_log" / f"{entry:020}.json"
    damage(file)
    before = fingerprint(lake.path(KEY))
    with pytest.raises(TableError, match=f"{file.name} {told}.*backup.*builds them anew"):
        write(commits(Commit(rows((3, 2)), {"upstream": 3})))
    with pytest.raises(TableError, match=file.name):
        lake.snapshot(KEY)
    assert fingerprint(lake.path(KEY)) == before


@pytest.mark.parametrize("left", ["_commit_0b2c.json.tmp", "00000000000000000000.json#1"])
def test_a_table_that_a_dying_writer_half_made_is_made(lake, write, left):
    log = lake.path(KEY) / "_delta_log"
    log.mkdir(parents=True)
    (log / left).write_text("{")
    write(commits(Commit(rows((1, 0)), {"upstream": 1})))
    assert table(lake).count() == 1


def test_reading_what_does_not_exist_names_what_to_do(lake):
    with pytest.raises(TableError, match="materialize silver/things first"):
        lake.load_input(dg.build_input_context(asset_key=KEY))


@pytest.fixture
def snapshot(lake, write):
    """A table with batches of the given sizes."""

    def build(*sizes):
        write(commits(*(Commit(rows(*((n, i) for i in range(size))), {"b": n}) for n, size in enumerate(sizes, 1))))
        return Snapshot(lake.path(KEY), table(lake), IDLE)

    return build


def spans(snapshot, *arguments, **kwargs):
    return [(span.after, span.upto, span.records) for span in snapshot.spans("batch", *arguments, **kwargs)]


def test_spans_are_bounded_but_never_split_a_batch(snapshot):
    things = snapshot(2, 2, 5, 1, 1)
    assert spans(things, 0, 4) == [(0, 2, 4), (2, 3, 5), (3, 5, 2)]
    assert spans(things, 0, 100) == [(0, 5, 11)]
    assert spans(things, 3, 1) == [(3, 4, 1), (4, 5, 1)]
    assert spans(things, 5, 4) == []
    assert spans(things, 1, 100, upto=3) == [(1, 3, 7)]


def test_spans_cover_batches_that_were_compacted_into_one_file(snapshot):
    things = snapshot(2, 2, 5)
    things.table.optimize.compact()
    assert spans(things, 0, 4, upto=2) == [(0, 2, 9)]
    assert spans(things, 2, 4) == [(2, 3, 9)]


def test_a_span_is_a_condition():
    assert Span("batch", 2, 5, 10).where == "batch > 2 AND batch <= 5"
