"""Overlay `small`: what dies in the middle of a run comes back by itself, and the promises hold."""

import json

import pytest

OVERLAY = "small"
pytestmark = pytest.mark.cluster

EVENTS = 30_000


@pytest.mark.parametrize("table", ["bronze/vehicles_events", "silver/vehicles_events"])
def test_a_run_killed_while_it_writes_is_retried_and_every_promise_holds(cluster, a_new_file, lease_held, table):
    cluster.quiet()
    # The lease keeps the run from its end until the kill has arrived.
    with lease_held("gold/.stats.lock"), a_new_file(f"{table}/**/*.parquet") as watcher:
        producer = cluster.start("python", "-m", "producer", "--count", str(EVENTS))
        assert watcher.wait(180) == 0
        killed = cluster.in_flight()
        cluster.kill_pod_of(killed)
        producer.communicate()
        assert producer.returncode == 0
    assert cluster.retry_of(killed)["status"] == "SUCCESS"
    assert cluster.run(killed)["status"] == "FAILURE"
    cluster.quiet()
    cluster.assert_promises()


def test_a_run_killed_before_golds_swap_is_retried_and_every_promise_holds(cluster, lease_held, eventually):
    cluster.quiet()
    with lease_held("gold/.stats.lock"):
        cluster.produce(30)
        killed = eventually(cluster.in_flight, 60, "the sensor starts a run")
        eventually(lambda: "Waiting for" in cluster.messages(killed), 60, "the run waits for gold/stats")
        cluster.kill_pod_of(killed)
    assert cluster.retry_of(killed)["status"] == "SUCCESS"
    cluster.quiet()
    cluster.assert_promises()


def test_a_run_over_its_memory_limit_fails_with_the_reason_and_leaves_nothing_behind(cluster, kubectl):
    cluster.quiet()
    limit = {"container_config": {"resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "280Mi"}}}}
    starved = cluster.launch("lakehouse", **{"dagster-k8s/config": json.dumps(limit), "dagster/max_retries": "0"})
    assert cluster.finished(starved)["status"] == "FAILURE"
    assert "OOMKilled" in cluster.messages(starved)
    assert cluster.pod_of(starved) is None
    # No lock is left and no place in the queue: the next run gets all it needs.
    following = cluster.launch("lakehouse")
    assert cluster.finished(following)["status"] == "SUCCESS", cluster.messages(following)
    cluster.quiet()
    cluster.assert_promises()


@pytest.mark.parametrize(
    "pod",
    [
        "app.kubernetes.io/component=postgres",
        "app.kubernetes.io/component=kafka",
        "app.kubernetes.io/component=daemon",
        "app.kubernetes.io/component=code-location",
    ],
)
def test_what_a_run_stands_on_may_restart_in_its_middle(cluster, eventually, kubectl, pod):
    cluster.quiet()
    expected = sum(cluster.gold().values()) + EVENTS
    cluster.produce(EVENTS)
    eventually(cluster.in_flight, 120, "the sensor starts a run")
    kubectl("delete", "pod", f"--selector={pod}", "--force", "--grace-period=0")
    kubectl("wait", "pod", f"--selector={pod}", "--for=condition=Ready", "--timeout=180s")
    eventually(lambda: sum(cluster.gold().values()) == expected, 300, "Gold has all events")
    cluster.quiet()
    cluster.assert_promises()
