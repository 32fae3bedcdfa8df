"""When the sensor starts a run, when it does not, and that it always says why."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from assets.bronze import bronze_vehicles_events
from lakehouse_dagster import sensors
from lakehouse_dagster.definitions import defs
from lakehouse_dagster.sensors import new_vehicle_events
from resources.delta import DeltaIOManager
from resources.kafka import KafkaResource
from resources.parquet import ParquetIOManager
from resources.spark import SparkResource


@pytest.fixture
def instance(tmp_path):
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as ephemeral:
        yield ephemeral


@pytest.fixture
def tick(instance, tmp_path, kafka):
    """One evaluation of the sensor over the new topic and an empty lake, or over another broker."""

    def evaluate(kafka=kafka):
        delta = DeltaIOManager(root=str(tmp_path / "lake"), spark=SparkResource(home=str(tmp_path / "spark")))
        with dg.build_sensor_context(instance=instance, resources={"kafka": kafka, "delta": delta}) as context:
            return new_vehicle_events(context)

    return evaluate


@pytest.fixture
def refresh(tmp_path, kafka, instance):
    """A run of every table, or of Bronze alone, as one that fails afterwards leaves it."""

    def run(*selected):
        root = str(tmp_path / "lake")
        delta = DeltaIOManager(root=root, spark=SparkResource(home=str(tmp_path / "spark")))
        resources = {"kafka": kafka, "delta": delta, "parquet": ParquetIOManager(root=root)}
        tables = [asset for asset in defs.assets if asset.key.path[0] != "kafka"]
        assert dg.materialize(selected or tables, resources=resources, instance=instance).success

    return run


def a_run(instance, job, status, launched=True):
    """A run that was launched, by UI or sensor, or one that a command line executes in its own process."""
    location = GrpcServerCodeLocationOrigin(host="code-location", port=3030, location_name="lakehouse_dagster")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)
    return instance.create_run_for_job(
        job_def=defs.resolve_job_def(job),
        status=status,
        remote_job_origin=origin if launched else None,
    )


def test_what_a_run_left_undone_behind_bronze_starts_one(tick, send, refresh):
    send(b"one")
    refresh(bronze_vehicles_events)
    assert tick().tags == {
        "lakehouse/new_offsets": "0",
        "lakehouse/behind": "silver/vehicles_events,silver/rejected_events",
    }
    refresh()
    assert "Bronze has everything" in tick().skip_message


def test_a_topic_without_records_starts_nothing(tick):
    assert "Bronze has everything" in tick().skip_message


def test_new_records_start_a_run(tick, send):
    send(b"one", b"two")
    assert tick().tags["lakehouse/new_offsets"] == "2"


def test_what_bronze_has_starts_nothing_and_what_it_has_not_does(tick, send, refresh):
    send(b"one", b"two")
    refresh()
    assert "partition 0 up to 2" in tick().skip_message
    send(b"three")
    assert tick().tags["lakehouse/new_offsets"] == "1"


@pytest.mark.parametrize("job", ["refresh", "lakehouse"])
@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
)
def test_one_run_at_a_time(tick, send, instance, job, status):
    send(b"one")
    run = a_run(instance, job, status)
    assert f"run {run.run_id} of {job} is {status.value}" in tick().skip_message


def test_a_run_of_a_command_line_does_not_keep_others_from_starting(tick, send, instance):
    send(b"one")
    a_run(instance, "refresh", dg.DagsterRunStatus.STARTED, launched=False)
    assert isinstance(tick(), dg.RunRequest)


def test_a_run_that_never_ended_does_not_keep_others_from_starting_for_ever(tick, send, instance, monkeypatch):
    send(b"one")
    a_run(instance, "refresh", dg.DagsterRunStatus.STARTED)
    monkeypatch.setattr(sensors, "IN_FLIGHT_AT_MOST", dt.timedelta())
    assert isinstance(tick(), dg.RunRequest)


def test_a_failed_run_is_tried_again_later_and_never_forgotten(tick, send, instance, monkeypatch):
    send(b"one")
    instance.report_run_failed(a_run(instance, "refresh", dg.DagsterRunStatus.STARTED))
    assert "the last run failed; the next try is in" in tick().skip_message
    monkeypatch.setattr(sensors, "FIRST_RETRY", dt.timedelta())
    assert isinstance(tick(), dg.RunRequest)


def test_each_failure_doubles_the_wait_up_to_an_hour(instance):
    waits = []
    for _ in range(9):
        instance.report_run_failed(a_run(instance, "refresh", dg.DagsterRunStatus.STARTED))
        waits.append(sensors._failures(instance)[1].total_seconds())
    assert waits == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600], abs=10)


def test_a_success_ends_the_waiting(instance):
    instance.report_run_failed(a_run(instance, "refresh", dg.DagsterRunStatus.STARTED))
    a_run(instance, "refresh", dg.DagsterRunStatus.SUCCESS)
    assert sensors._failures(instance) == (0, dt.timedelta())


def test_a_broker_that_does_not_answer_is_skipped_with_the_setting(tick):
    gone = KafkaResource(bootstrap_servers="127.0.0.1:1", topic="t", group="g", broker_home="")
    assert "127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS)" in tick(gone).skip_message


def test_a_missing_topic_is_skipped_with_the_setting(tick, broker):
    gone = KafkaResource(bootstrap_servers=broker, topic="nobody-made-it", group="g", broker_home="")
    assert "'nobody-made-it' (KAFKA_TOPIC) does not exist" in tick(gone).skip_message


def test_no_tick_starts_a_broker(tick, tmp_path):
    embedded = KafkaResource(topic="t", group="g", broker_home=str(tmp_path / "kafka"))
    assert "no broker runs here" in tick(embedded).skip_message
    assert not (tmp_path / "kafka").exists()


def test_a_lake_that_cannot_be_read_is_skipped_with_the_place(tick, send, tmp_path):
    send(b"one")
    table = tmp_path / "lake/bronze/vehicles_events"
    table.mkdir(parents=True)
    (table / "notes.txt").write_text("mine")
    assert str(table) in tick().skip_message
