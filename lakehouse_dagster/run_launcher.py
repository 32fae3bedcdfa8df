"""How runs start on Kubernetes, and when one of them counts as dead."""

import time

from dagster import DagsterRun
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster_k8s import K8sRunLauncher

# A run says something with each step and each commit, and waits for a table's lease no longer than this.
SILENT_SECONDS_AT_MOST = 3600


class LakehouseRunLauncher(K8sRunLauncher):
    """dagster-k8s's launcher, beside runs that it did not launch.

    Jobs, workflow steps and `dagster job execute` run in processes of their own and report to the same storage. Run
    monitoring looks for the launcher's Kubernetes Job of every run, and would fail these, which have none, in the
    middle of their work (dagster/_daemon/monitoring/run_monitoring.py, monitor_started_run). One that died is known by
    its silence.
    """

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """The state of a launched run's Job. Only a launched run has the origin of the job that was asked for."""
        if run.remote_job_origin is None:
            last = self._instance.event_log_storage.get_logs_for_run(run.run_id, limit=1, ascending=False)
            if not last or time.time() - last[0].timestamp < SILENT_SECONDS_AT_MOST:
                return CheckRunHealthResult(WorkerStatus.RUNNING, "started by a command line, not by this launcher")
            return CheckRunHealthResult(WorkerStatus.FAILED, f"silent for over {SILENT_SECONDS_AT_MOST} s")
        health: CheckRunHealthResult = super().check_run_worker_health(run)
        return health
