"""Overlay `small`: version B, the same steps as a workflow of Argo Workflows."""

import itertools
import json
import subprocess
from pathlib import Path

import pytest

OVERLAY = "small"
pytestmark = pytest.mark.cluster

PROJECT = Path(__file__).parents[2]
STEPS = ["producer", "bronze", "silver", "gold"]
# Kills what Argo's executor, process 1, has started. A deleted pod would be let end in peace, by Argo's finalizer.
KILL = """
import os, pathlib, signal
for process in pathlib.Path("/proc").glob("[0-9]*"):
    if b"materialize" in (process / "cmdline").read_bytes() and process.name not in ("1", str(os.getpid())):
        os.kill(int(process.name), signal.SIGKILL)
"""


@pytest.fixture
def steps(kubectl):
    """The pods of the newest workflow: step, phase, and when it began and ended, in order of their beginning."""

    def found():
        workflows = json.loads(kubectl("get", "workflows", "--sort-by=.metadata.creationTimestamp", "--output=json"))
        newest = workflows["items"][-1]
        pods = [node for node in newest.get("status", {}).get("nodes", {}).values() if node["type"] == "Pod"]
        pods.sort(key=lambda node: node["startedAt"] or "")
        return newest.get("status", {}).get("phase"), pods

    return found


def test_the_workflow_takes_the_steps_in_order_to_gold(cluster, make, steps):
    cluster.quiet()
    before = cluster.gold()
    make("workflow")
    phase, pods = steps()
    assert phase == "Succeeded"
    assert [pod["templateName"] for pod in pods] == STEPS
    assert all(one["finishedAt"] <= next_one["startedAt"] for one, next_one in itertools.pairwise(pods))
    assert cluster.gold() == {kind: before.get(kind, 0) + 10 for kind in ("bike", "car", "scoot")}
    cluster.assert_promises()


def test_a_step_that_dies_is_tried_again_and_nothing_is_doubled(cluster, kubectl, lease_held, steps, eventually):
    cluster.quiet()
    before = cluster.gold()

    def running_silver():
        pods = json.loads(kubectl("get", "pods", "--selector=workflows.argoproj.io/workflow", "--output=json"))["items"]
        return next(
            (
                pod["metadata"]["name"]
                for pod in pods
                if pod["status"]["phase"] == "Running"
                and pod["metadata"]["annotations"]["workflows.argoproj.io/node-name"].endswith(".silver(0)")
            ),
            None,
        )

    with lease_held("silver/.vehicles_events.lock"):
        subprocess.run(["kubectl", "create", "-f", "k8s/argo/submit.yaml"], cwd=PROJECT, check=True)
        step = eventually(running_silver, 180, "Silver's step runs")
        eventually(lambda: "Waiting for" in kubectl("logs", step, "--container=main"), 60, "it waits for the table")
        kubectl("exec", step, "--container=main", "--", "python", "-c", KILL)
    eventually(lambda: steps()[0] == "Succeeded", 300, "the workflow succeeds")
    _, pods = steps()
    assert [pod["templateName"] for pod in pods] == ["producer", "bronze", "silver", "silver", "gold"]
    assert [pod["phase"] for pod in pods].count("Succeeded") == 4
    cluster.quiet()
    assert cluster.gold() == {kind: before.get(kind, 0) + 10 for kind in ("bike", "car", "scoot")}
    cluster.assert_promises()


def test_the_schedule_is_there_and_suspended(kubectl):
    assert json.loads(kubectl("get", "cronworkflow", "lakehouse", "--output=json"))["spec"]["suspend"] is True


def test_the_step_itself_has_no_token(kubectl):
    pods = json.loads(kubectl("get", "pods", "--selector=workflows.argoproj.io/workflow", "--output=json"))["items"]
    assert pods
    for pod in pods:
        (main,) = (container for container in pod["spec"]["containers"] if container["name"] == "main")
        assert not [mount for mount in main["volumeMounts"] if "serviceaccount" in mount["mountPath"]]
