"""Silver's rows: valid, and the first with their event_id."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.testing import assertDataFrameEqual

from assets.rejected import reject, unaccounted
from assets.silver import LOOKUP_RECORDS, TABLE, accept, first_of_each, invalid, repeated, valid_events

# Few event ids are looked up, many are compared with all that Silver has.
FEW, MANY = LOOKUP_RECORDS, LOOKUP_RECORDS + 1


@pytest.fixture
def silver(frame):
    """Silver rows from (event_id number, batch, offset)."""

    def build(*rows):
        return frame(
            TABLE.schema,
            [
                {
                    "event_id": f"00000000-0000-4000-8000-{number:012}",
                    "vehicle_id": "car-1",
                    "type": "car",
                    "battery": 50.0,
                    "lat": 48.8,
                    "lon": 2.3,
                    "event_time": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
                    "event_date": dt.date(2026, 1, 1),
                    "batch": batch,
                    "topic": "t",
                    "partition": 0,
                    "offset": offset,
                    "ingested_at": dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC),
                }
                for number, batch, offset in rows
            ],
        )

    return build


def test_valid_records_become_silver_rows(records, event, silver):
    assertDataFrameEqual(valid_events(records(event(1), b"junk", event(2))), silver((1, 1, 0), (2, 1, 2)))


def test_the_first_record_of_an_event_wins_whatever_its_payload(records, event):
    first = first_of_each(valid_events(records(event(1, lat=1.0), event(1, lat=2.0), event(1, lat=3.0))))
    assert first.select("offset", "lat").toArrow().to_pylist() == [{"offset": 0, "lat": 1.0}]


@pytest.mark.parametrize("at_most", [FEW, MANY])
def test_an_event_that_silver_has_is_not_accepted_again(records, event, silver, at_most):
    accepted = accept(records(event(1), event(2), batch=2), silver((1, 1, 0)), at_most)
    assertDataFrameEqual(accepted, silver((2, 2, 1)))


def test_a_rejected_record_does_not_shadow_a_later_valid_one(records, event, silver):
    accepted = accept(records(event(1, lat="north"), event(1)), silver(), FEW)
    assertDataFrameEqual(accepted, silver((1, 1, 1)))


@pytest.mark.parametrize("at_most", [FEW, MANY])
def test_the_check_finds_ids_that_stand_twice(silver, at_most):
    twice = silver((1, 1, 0), (2, 1, 1), (1, 2, 0))
    assert [row["count"] for row in repeated(silver((1, 2, 0)), twice, at_most).toArrow().to_pylist()] == [2]
    assert repeated(silver((2, 1, 1)), twice, at_most).toArrow().num_rows == 0


@pytest.mark.parametrize(
    "column", ["battery = 101D", "battery = CAST('NaN' AS DOUBLE)", "lat = -91D", "lon = 181D", "type = 'boat'"]
)
def test_the_check_finds_values_out_of_range(silver, column):
    name, _, value = column.partition(" = ")
    rows = silver((1, 1, 0))
    assert invalid(rows).toArrow().num_rows == 0
    assert invalid(rows.selectExpr("*", f"{value} AS wrong").drop(name).withColumnRenamed("wrong", name)).count() == 1


VALUES = st.lists(st.none() | st.binary(max_size=40) | st.integers(1, 4), max_size=12)


def test_bronze_is_silver_and_rejected_whatever_the_bytes(records, event, silver, remote):
    """Integers stand for events with that id, so that they repeat within and across batches."""

    def batch(values, number):
        return records(*[event(v) if isinstance(v, int) else v for v in values], batch=number)

    @settings(deadline=None, max_examples=20 if remote is None else 3)
    @given(earlier=VALUES, later=VALUES)
    def holds(earlier, later):
        before = accept(batch(earlier, 1), silver(), FEW)
        after = accept(batch(later, 2), before, FEW)
        everything = before.unionByName(after)
        assert repeated(after, everything, FEW).count() == 0
        for landed, accepted in ((batch(earlier, 1), before), (batch(later, 2), after)):
            assert unaccounted(landed, accepted, reject(landed, accepted, everything, FEW)).count() == 0

    holds()
