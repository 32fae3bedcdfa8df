"""Kafka to Gold on both engines: the design's promises, read from the tables."""

import dataclasses
import json
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import DeltaTable
from duckdb_extensions import import_extension

from assets.bronze import Marks
from producer import gbfs
from producer.publish import publish
from producer.tally import Tally
from resources.kafka import KafkaResource

TABLES = ["bronze/vehicles_events", "silver/vehicles_events", "silver/rejected_events", "gold/daily_stats"]
# For what is the same on every engine, or would be tested twice.
on_sail_alone = pytest.mark.parametrize("remote", ["sail"], indirect=True)
on_spark_alone = pytest.mark.parametrize("remote", ["spark"], indirect=True)


def event(number=None, **changes):
    return json.dumps(
        {
            "event_id": str(uuid.UUID(int=number) if number is not None else uuid.uuid4()),
            "vehicle_id": "car-1",
            "type": "car",
            "battery": 50.0,
            "lat": 48.8,
            "lon": 2.3,
            "event_time": "2026-01-01T12:00:00Z",
        }
        | changes
    ).encode()


@pytest.fixture
def in_topic(broker, topic):
    """Every record of the topic, read by a plain consumer: (partition, offset) to (key, value, headers)."""

    def read():
        consumer = Consumer({"bootstrap.servers": broker, "group.id": "witness", "enable.partition.eof": True})
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found, ended = {}, 0
        while ended < len(partitions):
            message = consumer.poll(10)
            assert message is not None, "the broker went silent"
            if message.error() is None:
                place = (message.partition(), message.offset())
                found[place] = (message.key(), message.value(), message.headers())
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended += 1
        consumer.close()
        return found

    return read


def gold(lakehouse):
    return pq.read_table(lakehouse.root / "gold/stats").to_pylist()


def reasons(lakehouse):
    return Counter(lakehouse.rows("silver/rejected_events")["reason"].to_pylist())


def data_files(lakehouse):
    return {str(file): file.stat().st_mtime_ns for file in lakehouse.root.rglob("*.parquet")}


def assert_promises(lakehouse, in_topic):
    """Promises 1, 2 and 5, by DuckDB and a plain consumer, which share nothing with the pipeline."""
    bronze, silver, rejected = (lakehouse.rows(table) for table in TABLES[:3])
    headers = [
        None if h is None else [(pair["key"], pair["value"]) for pair in h] for h in bronze["headers"].to_pylist()
    ]
    places = list(zip(bronze["partition"].to_pylist(), bronze["offset"].to_pylist(), strict=True))
    values = zip(bronze["key"].to_pylist(), bronze["value"].to_pylist(), headers, strict=True)
    assert dict(zip(places, values, strict=True)) == in_topic()
    assert len(places) == len(set(places))
    bronze_at, silver_at, rejected_at = (
        f'SELECT topic, partition, "offset" FROM {name}' for name in ("bronze", "silver", "rejected")
    )
    assert duckdb.sql(f"{bronze_at} EXCEPT ALL ({silver_at} UNION ALL {rejected_at})").fetchall() == []
    assert bronze.num_rows == silver.num_rows + rejected.num_rows
    assert silver.num_rows == len(set(silver["event_id"].to_pylist()))
    recomputed = duckdb.sql(
        "SELECT type, count(*), avg(battery), max(lat) FROM silver GROUP BY type ORDER BY type"
    ).fetchall()
    assert [tuple(row.values()) for row in gold(lakehouse)] == [
        (kind, total, pytest.approx(battery, abs=1e-9), lat) for kind, total, battery, lat in recomputed
    ]


def test_whatever_the_records_all_are_kept_and_each_is_accounted_for(lakehouse, send, in_topic):
    send(
        (b"car-1", event(1), [("trace", b"\x00\xff"), ("trace", None)]),
        event(1),
        event(1, lat=80.0),
        event(2, type="bike", battery=None, lat=10.0),
        b"\xff\xfe nonsense",
        event(3)[:-9],
        event(3, battery="full"),
        event(3, battery=float("nan")),
        b"{}",
        b"",
        (b"car-1", None, None),
        event(4, type="scoot", battery=0.1, note="x" * 900_000),
        event(5, event_time="2999-01-01T00:00:00Z"),
        event(6, event_time="2001-01-01T00:00:00+02:00"),
    )
    send(event(7, type="scoot", battery=0.2), event(3), partition=2)
    first = lakehouse.run()
    assert first.success
    assert_promises(lakehouse, in_topic)
    assert reasons(lakehouse) == {
        "duplicate": 2,
        "not_json": 4,
        "wrong_type": 1,
        "missing_field": 1,
        "tombstone": 1,
        "future": 1,
    }
    assert [(row["type"], row["total"], row["max_lat"]) for row in gold(lakehouse)] == [
        ("bike", 1, 10.0),
        ("car", 3, 48.8),
        ("scoot", 2, 48.8),
    ]
    (bronze,) = first.asset_materializations_for_node("bronze__vehicles_events")
    (rejected,) = first.asset_materializations_for_node("silver__rejected_events")
    assert bronze.metadata["offsets"].value == {"0": {"from": 0, "to": 13}, "2": {"from": 0, "to": 1}}
    assert [bronze.metadata[name].value for name in ("rows written", "dagster/row_count", "table version")] == [
        16,
        16,
        1,
    ]
    assert rejected.metadata["rows written"].value == 10
    assert rejected.metadata["marks"].value == {"bronze/batch": {"from": None, "to": 1}}
    assert all(check.passed for check in first.get_asset_check_evaluations())
    assert len(first.get_asset_check_evaluations()) == 4

    # The same events again in a later run, one that was only rejected so far, and two late ones.
    send(event(1), event(2, lat=89.0), event(5), event(8, event_time="1999-12-31T23:59:59Z", lat=60.0), event(9))
    assert lakehouse.run().success
    assert_promises(lakehouse, in_topic)
    assert reasons(lakehouse)["duplicate"] == 4
    assert [(row["type"], row["total"], row["max_lat"]) for row in gold(lakehouse)] == [
        ("bike", 1, 10.0),
        ("car", 6, 60.0),
        ("scoot", 2, 48.8),
    ]

    # Nothing new, nothing done; and the audit of everything passes.
    versions, files = [lakehouse.version(table) for table in TABLES], data_files(lakehouse)
    assert lakehouse.run().success
    audit = lakehouse.run("audit")
    assert [lakehouse.version(table) for table in TABLES] == versions
    assert data_files(lakehouse) == files
    assert [check.passed for check in audit.get_asset_check_evaluations()] == [True] * 4

    # Every table is read without the pipeline.
    import_extension("delta")
    duckdb.sql("LOAD delta")
    for table in TABLES:
        path = str(lakehouse.root / table)
        counted = duckdb.sql(f"SELECT count(*) FROM delta_scan('{path}')").fetchone()
        assert counted == (pl.read_delta(path).height,) == (lakehouse.rows(table).num_rows,)
    stats = lakehouse.root / "gold/stats"
    assert duckdb.sql(f"SELECT sum(total) FROM '{stats}/*.parquet'").fetchone() == (9,)
    assert pl.read_parquet(stats)["total"].sum() == 9


@pytest.fixture
def kill(lakehouse, broker, topic):
    """A run of refresh that dies by SIGKILL right after its n-th commit; 5 is just before Gold's swap."""

    def run(commits):
        script = Path(__file__).with_name("refresh_until.py")
        command = [sys.executable, script, lakehouse.root, broker, topic, lakehouse.remote or "-", str(commits)]
        killed = subprocess.run(command, capture_output=True, timeout=240, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]

    return run


@on_sail_alone
@pytest.mark.parametrize("commits", [1, 2, 3, 4, 5], ids=["bronze", "silver", "rejected", "daily_stats", "stats"])
def test_a_run_killed_after_any_commit_ends_in_the_tables_of_one_clean_run(lakehouse, send, in_topic, kill, commits):
    send(event(1), event(2), b"junk")
    assert lakehouse.run().success
    send(event(2), event(3, battery=70.1), event(4, type="bike", battery=None), b"more junk")
    kill(commits)
    assert lakehouse.run().success
    assert_promises(lakehouse, in_topic)
    assert [lakehouse.rows(table).num_rows for table in TABLES] == [7, 4, 3, 2]
    assert [(row["type"], row["total"]) for row in gold(lakehouse)] == [("bike", 1), ("car", 3)]


@on_spark_alone  # on Sail, each of these gaps is tested by itself
def test_runs_killed_one_after_the_other_end_in_the_tables_of_clean_runs(lakehouse, send, in_topic, kill):
    for commits in (2, 3, 4):
        send(event(commits), event(commits), event(100 + commits, type="bike", battery=None), b"junk")
        kill(commits)
    assert lakehouse.run().success
    assert_promises(lakehouse, in_topic)
    assert [lakehouse.rows(table).num_rows for table in TABLES] == [12, 6, 6, 2]
    assert [(row["type"], row["total"]) for row in gold(lakehouse)] == [("bike", 3), ("car", 3)]
    # What the killed runs left counts for nothing: another run finds nothing to do.
    versions = [lakehouse.version(table) for table in TABLES]
    assert lakehouse.run().success
    assert [lakehouse.version(table) for table in TABLES] == versions


def test_the_engines_own_writer_makes_the_same_tables(lakehouse, send, in_topic):
    small = dataclasses.replace(lakehouse, max_collected_records=0)
    send(event(1), event(1), b"junk", event(2, type="bike", battery=None))
    assert small.run().success
    send(event(2), event(3), b"junk")
    assert small.run().success
    assert_promises(small, in_topic)
    versions = [small.version(table) for table in TABLES]
    assert small.run().success
    assert [small.version(table) for table in TABLES] == versions


@on_sail_alone
def test_a_backlog_of_many_slices(lakehouse, send, in_topic, monkeypatch, broker, topic):
    monkeypatch.setattr("assets.silver.SLICE_RECORDS", 20)
    monkeypatch.setattr("assets.rejected.SLICE_RECORDS", 20)
    sliced = KafkaResource(bootstrap_servers=broker, topic=topic, group="sliced", broker_home="", slice_records=10)
    lakehouse = dataclasses.replace(lakehouse, kafka=sliced)
    for partition in range(3):
        send(*[event(number % 40) for number in range(30)], b"junk", partition=partition)
    assert lakehouse.run().success
    assert_promises(lakehouse, in_topic)
    assert lakehouse.rows("silver/vehicles_events").num_rows == 30
    assert len(set(lakehouse.rows("bronze/vehicles_events")["batch"].to_pylist())) > 3


@on_sail_alone
def test_records_that_retention_took_stop_the_run_until_the_loss_is_accepted(lakehouse, send, broker, topic):
    send(*[event(number) for number in range(5)])
    assert lakehouse.run().success
    before = lakehouse.version("bronze/vehicles_events")
    send(*[event(number) for number in range(5, 12)])
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.delete_records([TopicPartition(topic, 0, 9)]).values():
        future.result(30)
    failed = lakehouse.run(raise_on_error=False)
    assert not failed.success
    told = failed.failure_data_for_node("bronze__vehicles_events").error.cause.message
    assert "partition 0 has lost offsets 5 to 8" in told
    assert "accept_loss" in told
    assert lakehouse.version("bronze/vehicles_events") == before
    accepting = {"ops": {"bronze__vehicles_events": {"config": {"accept_loss": True}}}}
    assert lakehouse.run(run_config=accepting).success
    assert lakehouse.rows("bronze/vehicles_events")["offset"].to_pylist() == [0, 1, 2, 3, 4, 9, 10, 11]
    marks = Marks(topic, lakehouse.kafka.state().topic_id)
    assert DeltaTable(str(lakehouse.root / "bronze/vehicles_events")).transaction_version(marks.lost(0)) == 4
    assert lakehouse.run().success


@on_sail_alone
def test_a_topic_made_anew_stops_the_run_until_that_is_accepted(lakehouse, send, broker, topic):
    send(event(1), event(2))
    assert lakehouse.run().success
    admin = AdminClient({"bootstrap.servers": broker})
    admin.delete_topics([topic])[topic].result(30)
    while topic in admin.list_topics(timeout=10).topics:
        pass
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    send(event(2), event(3))
    failed = lakehouse.run(raise_on_error=False)
    assert "made anew" in failed.failure_data_for_node("bronze__vehicles_events").error.cause.message
    assert lakehouse.run(run_config={"ops": {"bronze__vehicles_events": {"config": {"accept_loss": True}}}}).success
    assert [lakehouse.rows(table).num_rows for table in TABLES[:3]] == [4, 3, 1]
    assert lakehouse.run().success


FEED = {
    "last_updated": 1767268800,
    "ttl": 60,
    "version": "2.3",
    "data": {
        "bikes": [
            {"bike_id": "b1", "lat": 48.85, "lon": 2.35, "vehicle_type_id": "ebike", "current_fuel_percent": 0.5},
            {"bike_id": "b2", "lat": 48.86, "lon": 2.36, "vehicle_type_id": "ebike", "last_reported": 1767268000},
            {"bike_id": "s1", "lat": 48.87, "lon": 2.37, "vehicle_type_id": "moped", "current_fuel_percent": 0.25},
            {"bike_id": "s2", "station_id": "station-9", "vehicle_type_id": "moped"},
        ]
    },
}
TYPES = {
    "data": {
        "vehicle_types": [
            {"vehicle_type_id": "ebike", "form_factor": "bicycle"},
            {"vehicle_type_id": "moped", "form_factor": "moped"},
        ]
    }
}


@on_sail_alone
def test_a_gbfs_feed_goes_through_to_gold_and_sent_again_changes_nothing(lakehouse, broker, topic):
    def send_feed(feed):
        refused = Tally()
        delivered = publish(gbfs.read_events(feed, TYPES, refused), {"bootstrap.servers": broker}, topic).delivered
        return delivered, dict(refused.counts)

    assert send_feed(FEED) == (3, {"docked at a station, without a position": 1})
    assert lakehouse.run().success
    expected = [
        {"type": "bike", "total": 2, "avg_battery": 50.0, "max_lat": 48.86},
        {"type": "scoot", "total": 1, "avg_battery": 25.0, "max_lat": 48.87},
    ]
    assert gold(lakehouse) == expected
    silver = lakehouse.rows("silver/vehicles_events")
    send_feed(FEED)
    assert lakehouse.run().success
    assert gold(lakehouse) == expected
    assert lakehouse.rows("silver/vehicles_events").equals(silver)
    assert reasons(lakehouse) == {"duplicate": 3}
    send_feed(FEED | {"last_updated": 1767268860})
    assert lakehouse.run().success
    assert [row["total"] for row in gold(lakehouse)] == [3, 2]


@on_sail_alone
def test_the_lakehouse_job_sends_events_and_a_retry_sends_the_same(lakehouse):
    first = lakehouse.run("lakehouse")
    assert [(row["type"], row["total"]) for row in gold(lakehouse)] == [("bike", 10), ("car", 10), ("scoot", 10)]
    retried = {"ops": {"kafka__vehicles_events": {"config": {"seed": first.run_id}}}}
    assert lakehouse.run("lakehouse", run_config=retried).success
    assert [row["total"] for row in gold(lakehouse)] == [10, 10, 10]
    assert reasons(lakehouse) == {"duplicate": 30}
    assert lakehouse.run("lakehouse").success
    assert [row["total"] for row in gold(lakehouse)] == [20, 20, 20]


@on_sail_alone
def test_a_check_that_fails_keeps_gold_from_counting(lakehouse, send):
    send(event(1), b"junk")
    assert lakehouse.run().success
    send(event(2))
    table = DeltaTable(str(lakehouse.root / "silver/rejected_events"))
    table.delete()
    failed = lakehouse.run(raise_on_error=False)
    assert not failed.success
    (broken,) = [check for check in failed.get_asset_check_evaluations() if not check.passed]
    assert broken.check_name == "every_record_is_accounted_for"
    assert "Bronze 3, Silver 2, rejected 0" in (broken.description or "")
    assert gold(lakehouse)[0]["total"] == 1
    assert pa.table(DeltaTable(str(lakehouse.root / "gold/daily_stats")).to_pyarrow_table())["total"].to_pylist() == [1]
