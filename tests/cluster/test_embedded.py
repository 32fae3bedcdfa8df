"""Overlay `small`, the embedded engine in the run pods: the ways to use the lakehouse, from nothing to Gold."""

import json
import os
import shlex
import subprocess

import pytest

OVERLAY = "small"
pytestmark = pytest.mark.cluster

GOLD_COLUMNS = ["type", "total", "avg_battery", "max_lat"]
EVENT = '{"event_id": "%s", "vehicle_id": "v", "type": "%s", "lat": 1, "lon": 2, "event_time": "2026-01-01T00:00:00Z"}'
LAST_TICK = """
{ sensorOrError(sensorSelector: {repositoryName: "__repository__", repositoryLocationName: "lakehouse_dagster",
                                 sensorName: "new_vehicle_events"}) {
    ... on Sensor { sensorState { ticks(limit: 1) { skipReason } } } } }"""


@pytest.fixture
def totals(cluster):
    """How many events of each type Gold has, before a test adds to it."""
    before = cluster.gold()
    return lambda added: {kind: before.get(kind, 0) + added for kind in ("bike", "car", "scoot")}


def test_a_launched_run_is_a_kubernetes_job_and_ends_in_gold(cluster, kubectl, totals):
    run_id = cluster.launch("lakehouse")
    assert cluster.finished(run_id)["status"] == "SUCCESS", cluster.messages(run_id)
    assert "Kubernetes run worker job created" in cluster.messages(run_id)
    job = json.loads(kubectl("get", "job", f"dagster-run-{run_id}", "--output=json"))
    image = json.loads(kubectl("get", "deployment", "code-location", "--output=json"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image["spec"]["template"]["spec"]["containers"][0]["image"]
    assert cluster.gold() == totals(10)
    assert cluster.assert_promises()["columns"] == GOLD_COLUMNS


def test_messages_of_kafkas_own_producer_start_a_run_and_then_nothing_more(cluster, eventually, kubectl, totals):
    cluster.quiet()
    runs = len(cluster.runs())
    kinds = ("bike", "car", "scoot")
    lines = "\n".join(EVENT % (f"00000000-0000-4000-8000-00000000000{n}", kind) for n, kind in enumerate(kinds))
    producer = ["/opt/kafka/bin/kafka-console-producer.sh", "--bootstrap-server", "kafka:9092"]
    cluster.execute(*producer, "--topic", "vehicles-events", workload="kafka-0", stdin=f"{lines}\nno JSON\n")
    eventually(lambda: cluster.gold() == totals(1), 120, "Gold has what was sent")
    found = cluster.assert_promises()
    assert found["reasons"] == {"not_json": 1}
    cluster.quiet()
    (run,) = cluster.runs()[: len(cluster.runs()) - runs]
    assert run["tags"]["dagster/sensor_name"] == "new_vehicle_events"
    said = eventually(
        lambda: cluster.graphql(LAST_TICK)["sensorOrError"]["sensorState"]["ticks"][0]["skipReason"], 60, "a tick skips"
    )
    assert "Bronze has everything" in said
    assert len(cluster.runs()) == runs + 1


def test_dagster_job_execute_in_the_code_location_runs_in_its_own_process(cluster, kubectl, totals):
    cluster.quiet()
    cluster.execute("dagster", "job", "execute", "-m", "lakehouse_dagster.definitions", "-j", "lakehouse")
    newest = next(run for run in cluster.runs() if run["jobName"] == "lakehouse")
    assert newest["status"] == "SUCCESS"
    assert newest["runId"] not in kubectl("get", "jobs", "--output=name"), "nothing went through the launcher"
    assert cluster.gold() == totals(10)


def test_version_a_is_four_jobs_that_report_to_the_same_dagster(cluster, make, kubectl, totals):
    make("jobs")
    listed = kubectl("get", "jobs", "--selector=lakehouse/step", "--no-headers")
    assert [line.split()[:3] for line in listed.splitlines()] == [
        [f"{step}-job", "Complete", "1/1"] for step in ("bronze", "gold", "producer", "silver")
    ]
    assert cluster.gold() == totals(10)
    cluster.assert_promises()
    selected = [run for run in cluster.runs() if run["jobName"] == "__ASSET_JOB"][:4]
    assert {run["status"] for run in selected} == {"SUCCESS"}
    assert [sorted("/".join(asset["path"]) for asset in run["assetSelection"]) for run in reversed(selected)] == [
        ["kafka/vehicles_events"],
        ["bronze/vehicles_events"],
        ["silver/rejected_events", "silver/vehicles_events"],
        ["gold/daily_stats", "gold/stats"],
    ]


def test_redeploying_a_new_tag_changes_the_image_of_runs_too(cluster, make, kubectl):
    names = ["lakehouse-dagster", "lakehouse-spark"]
    for name in names:
        subprocess.run(["docker", "tag", f"{name}:dev", f"{name}:next"], check=True)
    load = shlex.split(os.environ.get("LOAD", "kind load docker-image"))
    subprocess.run([*load, *(f"{name}:next" for name in names)], check=True)
    make("deploy", OVERLAY=OVERLAY, TAG="next")
    run_id = cluster.launch("refresh")
    assert cluster.finished(run_id)["status"] == "SUCCESS", cluster.messages(run_id)
    job = json.loads(kubectl("get", "job", f"dagster-run-{run_id}", "--output=json"))
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "lakehouse-dagster:next"


def test_undeploy_leaves_the_tables_and_deploy_finds_them_again(cluster, make, kubectl):
    cluster.quiet()
    before = cluster.witness()
    make("undeploy", OVERLAY=OVERLAY)
    assert kubectl("get", "deployments,statefulsets,jobs,configmaps", "--output=name").split() == [
        "configmap/kube-root-ca.crt"
    ]
    assert "persistentvolumeclaim/lake" in kubectl("get", "pvc", "--output=name")
    make("deploy", OVERLAY=OVERLAY)
    assert cluster.witness() == before
