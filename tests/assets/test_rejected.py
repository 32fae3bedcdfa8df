"""Rejected: every record that Silver has not, with why."""

from assets.rejected import TABLE, reject, unaccounted
from assets.silver import LOOKUP_RECORDS, accept, valid_events

FEW = LOOKUP_RECORDS


def test_each_record_that_silver_lacks_is_there_with_its_reason(records, event):
    landed = records(event(1), b"junk", None, event(2, lat=91), event(1, lat=1.0))
    silver = accept(landed, valid_events(records()), FEW)
    rejected = reject(landed, silver, silver, FEW).orderBy("offset")
    assert rejected.columns == TABLE.schema.names
    rows = rejected.toArrow().to_pylist()
    assert [(row["offset"], row["reason"]) for row in rows] == [
        (1, "not_json"),
        (2, "tombstone"),
        (3, "out_of_range"),
        (4, "duplicate"),
    ]
    assert [row["value"] for row in rows[:2]] == [b"junk", None]


def test_a_duplicate_says_where_the_accepted_one_is(records, event):
    earlier = accept(records(event(1), batch=1, offset=7), valid_events(records()), FEW)
    again = records(event(1), batch=2, offset=8)
    none = accept(again, earlier, FEW)
    (row,) = reject(again, none, earlier, FEW).toArrow().to_pylist()
    assert row["detail"] == "event_id is in Silver, from partition 0 offset 7 of batch 1"


def test_a_record_that_silver_took_is_no_duplicate_of_itself(records, event):
    landed = records(event(1))
    silver = accept(landed, valid_events(records()), FEW)
    assert reject(landed, silver, silver, FEW).count() == 0


def test_the_check_finds_what_is_missing_and_what_is_there_twice(records, event):
    landed = records(event(1), b"junk", event(3))
    silver = accept(landed, valid_events(records()), FEW)
    rejected = reject(landed, silver, silver, FEW)
    assert unaccounted(landed, silver, rejected).count() == 0
    assert unaccounted(landed, silver, rejected.limit(0)).toArrow()["offset"].to_pylist() == [1]
    assert unaccounted(landed, silver.unionByName(silver), rejected).count() == 2
    assert unaccounted(landed.where("offset < 2"), silver, rejected).toArrow()["offset"].to_pylist() == [2]
