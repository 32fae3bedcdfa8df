"""Which runs the launcher watches over; that it launches them is in tests/cluster."""

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from lakehouse_dagster import run_launcher
from lakehouse_dagster.definitions import defs
from lakehouse_dagster.run_launcher import LakehouseRunLauncher

NO_CLUSTER = """
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
"""


@pytest.fixture
def instance(tmp_path):
    (tmp_path / "kubeconfig").write_text(NO_CLUSTER)
    launcher = {
        "module": "lakehouse_dagster.run_launcher",
        "class": "LakehouseRunLauncher",
        "config": {
            "load_incluster_config": False,
            "kubeconfig_file": str(tmp_path / "kubeconfig"),
            "service_account_name": "run",
            "dagster_home": "/opt/dagster",
            "instance_config_map": "dagster",
        },
    }
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_launcher": launcher}) as found:
        assert isinstance(found.run_launcher, LakehouseRunLauncher)
        yield found


def test_a_run_of_a_command_line_is_not_taken_for_dead(instance):
    run = instance.create_run_for_job(defs.resolve_job_def("refresh"), status=dg.DagsterRunStatus.STARTED)
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_a_run_of_a_command_line_that_has_said_nothing_for_long_is_dead(instance, monkeypatch):
    run = instance.create_run_for_job(defs.resolve_job_def("refresh"), status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("the last word", run)
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    monkeypatch.setattr(run_launcher, "SILENT_SECONDS_AT_MOST", 0)
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.FAILED


def test_a_launched_run_is_as_well_as_its_kubernetes_job(instance):
    location = GrpcServerCodeLocationOrigin(host="code-location", port=3030, location_name="lakehouse_dagster")
    run = instance.create_run_for_job(
        defs.resolve_job_def("refresh"),
        status=dg.DagsterRunStatus.STARTED,
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "refresh"),
    )
    found = instance.run_launcher.check_run_worker_health(run)
    assert found.status is WorkerStatus.UNKNOWN, "no cluster answers here"
