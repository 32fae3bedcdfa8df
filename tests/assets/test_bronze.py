"""What Bronze still has to read, and what it can no longer read."""

import pytest
from deltalake import CommitProperties, DeltaTable, Transaction

from assets.bronze import TABLE, DataLoss, Marks, backlog, fingerprint, refuse_loss
from resources.delta import Snapshot
from resources.kafka import TopicState
from resources.spark import SparkResource

ID = "kQ3Ym1nVTZ2xX0o8bH7w8A"


@pytest.fixture
def bronze(tmp_path):
    """A Bronze table of topic t, with marks for the partitions given."""

    def build(offsets, topic_id=ID):
        table = DeltaTable.create(str(tmp_path / "bronze"), TABLE.schema)
        marks = Marks("t", topic_id)
        transactions = [Transaction(marks.next_offset(p), offset) for p, offset in offsets.items()]
        transactions.append(Transaction(marks.topic, fingerprint(topic_id)))
        properties = CommitProperties(app_transactions=transactions)
        table.create_write_transaction([], "append", TABLE.schema, commit_properties=properties)
        table.update_incremental()
        return Snapshot(tmp_path / "bronze", table, SparkResource(home="never started"))

    return build


def state(watermarks, topic_id=ID):
    return TopicState(topic_id, watermarks)


def test_the_first_read_begins_where_the_topic_begins():
    found = backlog("t", state({0: (0, 5), 1: (100, 100)}), None)
    assert (found.start, found.end, found.records) == ({0: 0, 1: 100}, {0: 5, 1: 100}, 5)
    refuse_loss("t", found)


def test_a_later_read_begins_at_the_marks(bronze):
    found = backlog("t", state({0: (0, 5), 1: (2, 9)}), bronze({0: 3, 1: 9}))
    assert (found.start, found.records) == ({0: 3, 1: 9}, 2)
    refuse_loss("t", found)


def test_records_that_expired_after_they_were_read_are_no_loss(bronze):
    found = backlog("t", state({0: (3, 5)}), bronze({0: 3}))
    assert (found.start, found.lost) == ({0: 3}, {})


def test_an_added_partition_is_read_from_its_beginning(bronze):
    found = backlog("t", state({0: (0, 5), 1: (0, 4)}), bronze({0: 5}))
    assert (found.start, found.lost) == ({0: 5, 1: 0}, {})


@pytest.mark.parametrize(
    ("marks", "watermarks", "message"),
    [
        ({0: 3}, {0: (7, 9)}, "partition 0 has lost offsets 3 to 6"),
        ({0: 3}, {0: (9, 9)}, "partition 0 has lost offsets 3 to 8"),
        ({0: 5}, {0: (0, 5), 1: (2, 4)}, "partition 1 has lost offsets 0 to 1"),
        ({0: 10}, {0: (0, 4)}, "partition 0 ends before offset 4, though Bronze has it up to 9"),
    ],
    ids=["retention", "retention of all", "retention of an added partition", "truncation"],
)
def test_loss_is_refused_by_partition_and_offset(bronze, marks, watermarks, message):
    found = backlog("t", state(watermarks), bronze(marks))
    with pytest.raises(DataLoss, match=message):
        refuse_loss("t", found)
    assert all(watermarks[p][0] <= start <= watermarks[p][1] for p, start in found.start.items())


def test_a_topic_made_anew_is_refused(bronze):
    found = backlog("t", state({0: (0, 5)}, topic_id="another"), bronze({0: 3}))
    assert found.start == {0: 0}
    with pytest.raises(DataLoss, match="deleted and made anew"):
        refuse_loss("t", found)


def test_a_fingerprint_is_a_mark():
    assert 0 <= fingerprint(ID) < 2**63
    assert fingerprint(ID) != fingerprint("another")
