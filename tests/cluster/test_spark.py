"""Overlay `local`: Apache Spark computes Silver and Gold, in a Connect server of its own."""

import pytest

OVERLAY = "local"
pytestmark = pytest.mark.cluster


def test_from_nothing_to_gold_on_apache_spark(cluster):
    run_id = cluster.launch("lakehouse")
    assert cluster.finished(run_id, 300)["status"] == "SUCCESS", cluster.messages(run_id)
    assert cluster.gold() == {"bike": 10, "car": 10, "scoot": 10}
    assert cluster.assert_promises()["columns"] == ["type", "total", "avg_battery", "max_lat"]


def test_the_spark_server_killed_in_the_middle_of_a_run_loses_nothing(cluster, kubectl, eventually):
    cluster.quiet()
    expected = sum(cluster.gold().values()) + 30_000
    cluster.produce(30_000)
    eventually(cluster.in_flight, 120, "the sensor starts a run")
    server = "--selector=app.kubernetes.io/component=spark"
    kubectl("delete", "pod", server, "--force", "--grace-period=0")
    kubectl("wait", "pod", server, "--for=condition=Ready", "--timeout=240s")
    eventually(lambda: sum(cluster.gold().values()) == expected, 400, "Gold has all events")
    cluster.quiet()
    cluster.assert_promises()
