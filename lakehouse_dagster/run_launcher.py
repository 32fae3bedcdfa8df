"""How runs start on Kubernetes, and when one of them counts as dead."""

from dagster import DagsterRun
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster_k8s import K8sRunLauncher


class LakehouseRunLauncher(K8sRunLauncher):
    """dagster-k8s's launcher, beside runs that it did not launch.

    Jobs, workflow steps and `dagster job execute` run in processes of their own and report to the same storage. Run
    monitoring looks for the launcher's Kubernetes Job of every run, and would fail these, which have none, in the
    middle of their work (dagster/_daemon/monitoring/run_monitoring.py, monitor_started_run). One that died ends at
    the `max_runtime_seconds` of run monitoring.
    """

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """The state of a launched run's Job. Only a launched run has the origin of the job that was asked for."""
        if run.remote_job_origin is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "started by a command line, not by this launcher")
        health: CheckRunHealthResult = super().check_run_worker_health(run)
        return health
