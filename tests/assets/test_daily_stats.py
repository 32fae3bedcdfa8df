"""Daily sums: exact, and the same in whatever pieces and order the events came."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.testing import assertDataFrameEqual

from assets.daily_stats import TABLE, combine, summarize
from assets.silver import valid_events


def test_one_row_per_day_and_type(records, event):
    rows = (
        summarize(
            valid_events(
                records(
                    event(1, battery=20, lat=1.0),
                    event(2, battery=None, lat=3.0),
                    event(3, battery=0.1, lat=2.0),
                    event(4, type="bike", battery=None, lat=-5.0, event_time="2025-12-31T23:59:59.999999Z"),
                )
            )
        )
        .orderBy("event_date")
        .toArrow()
        .to_pylist()
    )
    assert [tuple(row.values())[1:] for row in rows] == [
        ("bike", 1, 0, Decimal(0), -5.0),
        ("car", 3, 2, Decimal("20.1"), 3.0),
    ]


def test_the_columns_are_the_tables(records, event, engine):
    one = summarize(valid_events(records(event(1))))
    assert combine(one, one).toArrow().cast(TABLE.schema).schema.names == TABLE.schema.names


def test_new_days_are_added_and_known_days_are_summed(records, event):
    known = summarize(valid_events(records(event(1, battery=10, lat=1.0))))
    new = summarize(valid_events(records(event(2, battery=20, lat=2.0), event(3, event_time="2020-02-29T00:00:00Z"))))
    rows = combine(known, new).toArrow().to_pylist()
    assert [(str(r["event_date"]), r["total"], r["battery_sum"], r["max_lat"]) for r in rows] == [
        ("2020-02-29", 1, Decimal(50), 48.8),
        ("2026-01-01", 2, Decimal(30), 2.0),
    ]


def test_sums_do_not_depend_on_pieces_or_order(records, event, remote):
    @settings(deadline=None, max_examples=20 if remote is None else 3)
    @given(batteries=st.lists(st.none() | st.floats(0, 100), min_size=2, max_size=20), cut=st.integers(0, 20))
    def holds(batteries, cut):
        events = [event(number, battery=battery) for number, battery in enumerate(batteries)]
        whole = summarize(valid_events(records(*events)))
        back = list(reversed(events))
        pieces = combine(summarize(valid_events(records(*back[:cut]))), summarize(valid_events(records(*back[cut:]))))
        assertDataFrameEqual(pieces, whole)

    holds()
