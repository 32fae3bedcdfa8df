"""When a run starts by itself: as soon as Kafka has records that Bronze has not."""

import datetime as dt
from collections.abc import Mapping

import dagster as dg

from assets.bronze import backlog, bronze_vehicles_events
from lakehouse_dagster.jobs import lakehouse, refresh
from resources.delta import DeltaIOManager, TableError
from resources.kafka import KafkaResource, KafkaUnavailable

INTERVAL_SECONDS = 10
FIRST_RETRY = dt.timedelta(seconds=30)
LAST_RETRY = dt.timedelta(hours=1)
REMEMBERED_RUNS = 10
IN_FLIGHT_AT_MOST = dt.timedelta(hours=1)

UNFINISHED = [
    status
    for status in dg.DagsterRunStatus
    if status not in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
]


@dg.sensor(
    job=refresh,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_vehicle_events(
    context: dg.SensorEvaluationContext, kafka: KafkaResource, delta: dg.ResourceParam[DeltaIOManager]
) -> dg.SensorResult | dg.SkipReason | dg.RunRequest:
    """Start `refresh` when the topic's watermarks are past Bronze's marks, one run at a time.

    No cursor and no run key: the tables and the runs are the state, so nothing is forgotten. After failures the
    next run waits, twice as long each time. A tick reads no record and starts no engine and no broker.
    """
    in_flight = _in_flight(context.instance)
    if in_flight is not None:
        return dg.SkipReason(f"run {in_flight.run_id} of {in_flight.job_name} is {in_flight.status.value}")
    waiting = _wait_after_failures(context.instance)
    if waiting > dt.timedelta():
        return dg.SkipReason(f"the last run failed; the next try is in {waiting.total_seconds():.0f} s")
    if not kafka.available():
        return dg.SkipReason("no broker runs here: start one with `make dev`, or set KAFKA_BOOTSTRAP_SERVERS")
    try:
        found = backlog(kafka.topic, kafka.state(), delta.snapshot(bronze_vehicles_events.key))
    except (KafkaUnavailable, TableError) as error:
        return dg.SkipReason(str(error))
    if found.records or found.lost or found.recreated:
        return dg.RunRequest(tags={"lakehouse/new_offsets": str(found.records)})
    return dg.SkipReason(f"Bronze has everything of {kafka.topic!r}: " + _listed(found.end))


def _in_flight(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """A launched run that is on its way to take what is new.

    Runs of a command line do not count: nobody would say of them that they died, and a second run only waits for the
    tables. For the same reason no run counts for longer than that wait.
    """
    recent = dt.datetime.now(dt.UTC) - IN_FLIGHT_AT_MOST
    for job in (refresh.name, lakehouse.name):
        unfinished = dg.RunsFilter(job_name=job, statuses=UNFINISHED, updated_after=recent)
        for record in instance.get_run_records(unfinished):
            if record.dagster_run.remote_job_origin is not None:
                return record.dagster_run
    return None


def _wait_after_failures(instance: dg.DagsterInstance) -> dt.timedelta:
    records = instance.get_run_records(dg.RunsFilter(job_name=refresh.name), limit=REMEMBERED_RUNS)
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures or records[0].end_time is None:
        return dt.timedelta()
    delay: dt.timedelta = min(FIRST_RETRY * 2.0 ** (failures - 1), LAST_RETRY)
    return dt.datetime.fromtimestamp(records[0].end_time, dt.UTC) + delay - dt.datetime.now(dt.UTC)


def _listed(offsets: Mapping[int, int]) -> str:
    return ", ".join(f"partition {partition} up to {offset}" for partition, offset in offsets.items())
