"""Overlay `scale`: Apache Spark computes on two executor pods."""

import json

import pytest

OVERLAY = "scale"
pytestmark = pytest.mark.cluster

EXECUTORS = "--selector=spark-role=executor"
EVENTS = 150_000  # more than the 100,000 that a run would collect and write itself


def running(kubectl):
    pods = kubectl("get", "pods", EXECUTORS, "--field-selector=status.phase=Running", "--output=name")
    return pods.split()


def test_executors_are_two_pods_that_may_do_nothing(cluster, kubectl, eventually):
    eventually(lambda: len(running(kubectl)) == 2, 120, "two executors run")
    image = json.loads(kubectl("get", "deployment", "spark", "--output=json"))["spec"]["template"]["spec"]["containers"]
    for pod in json.loads(kubectl("get", "pods", EXECUTORS, "--output=json"))["items"]:
        (container,) = pod["spec"]["containers"]
        assert container["image"] == image[0]["image"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert not [mount for mount in container["volumeMounts"] if "serviceaccount" in mount["mountPath"]]
    identity = "--as=system:serviceaccount:lakehouse:spark-executor"
    listed = kubectl("auth", "can-i", "--list", identity, "--no-headers").splitlines()
    assert [line for line in listed if not line.startswith(("[", "self", " "))] == []


def test_a_run_on_executors_gives_the_same_tables_and_one_killed_in_its_middle_changes_nothing(
    cluster, kubectl, eventually
):
    cluster.execute("python", "-m", "producer", "--count", str(EVENTS), "--seed", "scale")
    run_id = cluster.launch("refresh")
    eventually(lambda: "silver/vehicles_events" in cluster.messages(run_id), 180, "the run is at Silver")
    victim = running(kubectl)[0]
    kubectl("delete", victim, "--force", "--grace-period=0")
    assert cluster.finished(run_id, 400)["status"] == "SUCCESS", cluster.messages(run_id)
    cluster.quiet()
    found = cluster.assert_promises()
    assert (found["records"], found["reasons"]) == (EVENTS, {})
    assert sum(total for _, total, _, _ in found["gold"]) == EVENTS
    on_sail = ["env", "SPARK_REMOTE=", "LAKEHOUSE_ROOT=/tmp/on-sail", "DAGSTER_HOME="]
    cluster.execute(*on_sail, "dagster", "job", "execute", "-m", "lakehouse_dagster.definitions", "-j", "refresh")
    assert cluster.witness("/tmp/on-sail")["digest"] == found["digest"]
    eventually(lambda: victim not in running(kubectl) and len(running(kubectl)) == 2, 120, "the executor is replaced")
