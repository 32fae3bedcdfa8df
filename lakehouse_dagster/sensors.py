"""When a run starts by itself: as soon as Kafka has records that Bronze has not, or Bronze what the others have not."""

import datetime as dt
from collections.abc import Mapping

import dagster as dg

from assets.bronze import BATCH, backlog, bronze_vehicles_events
from assets.daily_stats import gold_daily_stats
from assets.rejected import silver_rejected_events
from assets.silver import BRONZE_BATCH, silver_vehicles_events
from lakehouse_dagster.jobs import lakehouse, refresh
from resources.delta import DeltaIOManager, Snapshot, TableError
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
    """Start `refresh` when a table's marks are behind what it is made from, one run at a time.

    No cursor and no run key: the tables and the runs are the state, so nothing is forgotten, also not what a run left
    undone that failed half-way. After failures the next run waits, twice as long each time. A tick reads no record and
    starts no engine and no broker.
    """
    in_flight = _in_flight(context.instance)
    if in_flight is not None:
        return dg.SkipReason(f"run {in_flight.run_id} of {in_flight.job_name} is {in_flight.status.value}")
    failures, waiting = _failures(context.instance)
    if waiting > dt.timedelta():
        return dg.SkipReason(f"the last run failed; the next try is in {waiting.total_seconds():.0f} s")
    if not kafka.available():
        return dg.SkipReason("no broker runs here: start one with `make dev`, or set KAFKA_BOOTSTRAP_SERVERS")
    try:
        bronze = delta.snapshot(bronze_vehicles_events.key)
        found = backlog(kafka.topic, kafka.state(), bronze)
        behind = _behind(delta, bronze)
    except (KafkaUnavailable, TableError) as error:
        return dg.SkipReason(str(error))
    if found.records or found.lost or found.recreated or behind or failures:
        tags = {"lakehouse/new_offsets": str(found.records), "lakehouse/behind": ",".join(behind)}
        return dg.RunRequest(tags={name: value for name, value in tags.items() if value})
    return dg.SkipReason(f"Bronze has everything of {kafka.topic!r}: " + _listed(found.end))


def _behind(delta: DeltaIOManager, bronze: Snapshot | None) -> list[str]:
    """The tables that have not judged all rows of the one that they are made from."""
    silver = delta.snapshot(silver_vehicles_events.key)
    rejected = delta.snapshot(silver_rejected_events.key)
    daily = delta.snapshot(gold_daily_stats.key)
    behind = []
    for source, asset, table in (
        (bronze, silver_vehicles_events, silver),
        (bronze, silver_rejected_events, rejected),
        (silver, gold_daily_stats, daily),
    ):
        judged = (table.mark(BRONZE_BATCH) if table is not None else None) or 0
        if source is not None and next(source.spans(BATCH, judged, max_records=1), None) is not None:
            behind.append(asset.key.to_user_string())
    return behind


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


def _failures(instance: dg.DagsterInstance) -> tuple[int, dt.timedelta]:
    """How many of the last runs failed in a row, and how long the next one has to wait for that."""
    records = instance.get_run_records(dg.RunsFilter(job_name=refresh.name), limit=REMEMBERED_RUNS)
    failures = 0
    for record in records:
        if record.dagster_run.status != dg.DagsterRunStatus.FAILURE:
            break
        failures += 1
    if not failures or records[0].end_time is None:
        return failures, dt.timedelta()
    delay: dt.timedelta = min(FIRST_RETRY * 2.0 ** (failures - 1), LAST_RETRY)
    return failures, dt.datetime.fromtimestamp(records[0].end_time, dt.UTC) + delay - dt.datetime.now(dt.UTC)


def _listed(offsets: Mapping[int, int]) -> str:
    return ", ".join(f"partition {partition} up to {offset}" for partition, offset in offsets.items())
