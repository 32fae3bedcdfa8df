"""Versions A and B: four Jobs, and the workflow's four steps. They are the same commands in the same pods as runs."""

import json
from pathlib import Path

import dagster as dg
import pytest
import yaml

from lakehouse_dagster.definitions import defs

# Dagster's own, from within Dagster: it would take the warning for a selection that it cannot parse.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `include_sources`")
STEPS = ["producer", "bronze", "silver", "gold"]


@pytest.fixture(params=["jobs", "argo"])
def steps(request):
    """The pods of Jobs and of the workflow, by the step that they do."""
    rendering = request.getfixturevalue(request.param)
    return {name.removesuffix("-job"): pod for name, pod in rendering.pods().items()}


def option(pod, name):
    """What a step's command says after an option; None where it does not say it."""
    command = pod.serves[0]["command"]
    return command[command.index(name) + 1] if name in command else None


def selected(pod):
    """The assets that a step materializes."""
    assert pod.serves[0]["command"][:3] == ["dagster", "asset", "materialize"]
    assert option(pod, "--module-name") == "lakehouse_dagster.definitions"
    return dg.AssetSelection.from_coercible(option(pod, "--select").split(",")).resolve(list(defs.assets))


def test_the_steps_together_materialize_every_asset_once(steps):
    assert sorted(steps) == sorted(STEPS)
    found = [key for pod in steps.values() for key in selected(pod)]
    assert sorted(found) == sorted(key for asset in defs.assets for key in asset.keys)


def test_a_step_has_what_it_needs_from_the_ones_before(steps):
    graph = defs.resolve_asset_graph()
    done = set()
    for name in STEPS:
        keys = selected(steps[name])
        assert {parent for key in keys for parent in graph.get(key).parent_keys} <= done | keys, name
        done |= keys


def test_a_retried_producer_sends_the_same_events(steps):
    config = json.loads(option(steps["producer"], "--config-json"))
    dg.validate_run_config(defs.resolve_job_def("lakehouse"), config)
    (op,) = config["ops"].values()
    variables = {one["name"]: one.get("valueFrom") for one in steps["producer"].serves[0]["env"]}
    of_job = {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}}
    assert op["config"]["seed"] == ("$(JOB_UID)" if variables.get("JOB_UID") == of_job else "{{workflow.uid}}")


def test_a_step_is_a_pod_like_a_run(steps, overlay_of):
    local = overlay_of("local")
    run = local.pods()["run"]
    for name, pod in steps.items():
        for key in ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext"):
            assert pod.spec[key] == run.spec[key], (name, key)
        ours, theirs = pod.serves[0], run.serves[0]
        for key in ("image", "resources", "securityContext"):
            assert ours[key] == theirs[key], (name, key)
        # A run gets the instance on its command line instead.
        instance = {"/opt/dagster": next(one for one in pod.spec["volumes"] if one["name"] == "instance")}
        assert pod.mounts(ours) == run.mounts(theirs) | instance, name
        environment = {key: value for key, value in local.environment(ours).items() if key != "JOB_UID"}
        told = {"DAGSTER_HOME", "DAGSTER_RUN_JOB_NAME"}
        assert environment == {k: v for k, v in local.environment(theirs).items() if k not in told}, name


def test_runs_find_dagster_where_the_image_says(overlay_of):
    dockerfile = (Path(__file__).parents[2] / "k8s/image/lakehouse/Dockerfile").read_text()
    local = overlay_of("local")
    assert f"DAGSTER_HOME={local.environment(local.pods()['run'].serves[0])['DAGSTER_HOME']}\n" in dockerfile


def test_jobs_give_up_in_time(jobs, argo, overlay):
    run = overlay.of("Job")["run"]["spec"]
    limit = overlay.instance["run_monitoring"]["max_runtime_seconds"]
    assert run["activeDeadlineSeconds"] == limit
    assert run["template"]["spec"]["restartPolicy"] == "Never"
    for job in jobs.of("Job").values():
        assert job["spec"]["activeDeadlineSeconds"] == limit
        assert job["spec"]["backoffLimit"] == overlay.instance["run_retries"]["max_retries"]
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert argo.get("WorkflowTemplate", "lakehouse")["spec"]["activeDeadlineSeconds"] == limit


def test_jobs_can_be_applied_one_by_one(jobs):
    for name, job in jobs.of("Job").items():
        assert job["metadata"]["labels"]["lakehouse/step"] == name.removesuffix("-job")


def test_the_workflow_goes_from_the_events_to_gold(argo):
    spec = argo.get("WorkflowTemplate", "lakehouse")["spec"]
    templates = {one["name"]: one for one in spec["templates"]}
    tasks = {one["name"]: one for one in templates[spec["entrypoint"]]["dag"]["tasks"]}
    assert list(tasks) == STEPS
    assert {one["template"] for one in tasks.values()} == templates.keys() - {spec["entrypoint"]}
    before = {name: task.get("dependencies", []) for name, task in tasks.items()}
    assert before == {"producer": [], "bronze": ["producer"], "silver": ["bronze"], "gold": ["silver"]}


def test_argos_own_containers_keep_the_steps_rules(argo):
    spec = argo.get("WorkflowTemplate", "lakehouse")["spec"]
    patch = yaml.safe_load(spec["podSpecPatch"])
    own = {container["name"]: container for container in patch["initContainers"] + patch["containers"]}
    assert own.keys() == {"init", "wait"}
    rules = spec["templateDefaults"]["container"]["securityContext"]
    assert all(container["securityContext"] == rules for container in own.values())


def test_two_workflows_do_not_write_one_table(argo):
    for template in argo.get("WorkflowTemplate", "lakehouse")["spec"]["templates"]:
        if "container" in template:
            keys = selected(argo.pods()[template["name"]])
            tables = {"-".join(key.path).replace("_", "-") for key in keys if key.path[0] != "kafka"}
            mutexes = {one["name"] for one in template.get("synchronization", {}).get("mutexes", [])}
            assert mutexes == tables


def test_the_clock_starts_the_workflow_only_where_someone_wants_it(argo):
    spec = argo.get("CronWorkflow", "lakehouse")["spec"]
    assert spec["suspend"] is True
    assert spec["workflowSpec"]["workflowTemplateRef"]["name"] in argo.of("WorkflowTemplate")
