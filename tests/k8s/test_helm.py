"""k8s/helm: what Dagster's chart is told is what k8s/base says, and the kustomization brings the rest."""

import re
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def values():
    """What the chart is told."""
    return yaml.safe_load((Path(__file__).parents[2] / "k8s/helm/values.yaml").read_text())


@pytest.fixture
def base(overlay_of):
    """The smallest of what is deployed without Helm."""
    return overlay_of("small")


def snake(config):
    """A mapping with keys as dagster.yaml has them; the chart's are in camel case."""
    if not isinstance(config, dict):
        return config
    return {re.sub("[A-Z]", lambda found: "_" + found[0].lower(), key): snake(value) for key, value in config.items()}


def test_runs_are_launched_in_the_same_way(values, base):
    assert values["runLauncher"]["type"] == "CustomRunLauncher"
    assert values["runLauncher"]["config"]["customRunLauncher"] == base.instance["run_launcher"]


def test_the_instance_is_configured_in_the_same_way(values, base):
    daemon = values["dagsterDaemon"]
    assert values["computeLogManager"]["type"] == "CustomComputeLogManager"
    assert values["computeLogManager"]["config"]["customComputeLogManager"] == base.instance["compute_logs"]
    assert snake(values["concurrency"]) == {"enabled": True} | base.instance["concurrency"]
    assert daemon["runCoordinator"] == {"enabled": True, "type": base.instance["run_coordinator"]["class"]}
    assert snake(daemon["runMonitoring"]) == base.instance["run_monitoring"]
    assert snake(daemon["runRetries"]) == base.instance["run_retries"]
    assert snake(values["retention"]) == {"enabled": True} | base.instance["retention"]
    assert values["telemetry"] == base.instance["telemetry"]


def test_the_database_and_its_password_are_the_same(values, helm):
    database = values["postgresql"]
    assert database["enabled"] is values["generatePostgresqlPasswordSecret"] is False
    assert database["postgresqlHost"] == helm.settings["DAGSTER_PG_HOST"]
    assert database["postgresqlUsername"] == helm.settings["DAGSTER_PG_USERNAME"]
    assert database["postgresqlDatabase"] == helm.settings["DAGSTER_PG_DB"]
    (postgres,) = helm.pods()["postgres"].serves
    password = next(one["valueFrom"] for one in postgres["env"] if one["name"] == "POSTGRES_PASSWORD")
    assert values["global"]["postgresqlSecretName"] == password["secretKeyRef"]["name"]
    assert not re.search("(?i)password['\"]?: ['\"]?[^{ ]", yaml.safe_dump(database))


def test_the_pods_are_the_same(values, base):
    told = {
        "daemon": values["dagsterDaemon"],
        "webserver": values["dagsterWebserver"],
        "code-location": values["dagster-user-deployments"]["deployments"][0],
    }
    for name, ours in told.items():
        pod = base.pods()[name]
        (container,) = pod.serves
        image = ours["image"]
        assert f"{image['repository']}:{image['tag']}" == container["image"], name
        assert ours["labels"].items() <= pod.labels.items(), name
        assert ours["podSecurityContext"] == pod.spec["securityContext"] | {"fsGroupChangePolicy": "OnRootMismatch"}
        assert ours["securityContext"] == container["securityContext"], name
        assert ours["resources"] == container["resources"], name
        assert ours["envConfigMaps"] == [one["configMapRef"] for one in container["envFrom"]], name
        assert all(one in container["env"] for one in ours["env"]), name
        # The chart mounts instance and workspace by itself, but for the instance in a code location.
        by_chart = {"workspace"} if name == "code-location" else {"instance", "workspace"}
        mounts = [one for one in container["volumeMounts"] if one["name"] not in by_chart]
        assert ours["volumeMounts"] == mounts, name
        volumes = {one["name"]: one for one in pod.spec["volumes"] if one["name"] not in by_chart}
        if name == "code-location":
            volumes["instance"] = {"name": "instance", "configMap": {"name": "dagster-instance"}}
        assert {one["name"]: one for one in ours["volumes"]} == volumes, name
    (migrate,) = told["daemon"]["extraPrependedInitContainers"]
    (theirs,) = base.pods()["daemon"].spec["initContainers"]
    for key in ("name", "image", "command", "envFrom", "env", "securityContext", "resources"):
        assert migrate[key] == theirs[key], key


def test_the_code_location_is_the_same(values, base):
    (location,) = values["dagster-user-deployments"]["deployments"]
    command = base.pods()["code-location"].serves[0]["command"]
    assert location["codeServerArgs"] == command[command.index("--module-name") :]
    assert location["includeConfigInLaunchedRuns"] == {"enabled": False}
    workspace = yaml.safe_load(base.get("ConfigMap", "workspace")["data"]["workspace.yaml"])
    wanted = workspace["load_from"][0]["grpc_server"]
    assert wanted["host"] == location["name"]
    assert wanted["port"] == location["port"]
    server = {"host": wanted["host"], "port": wanted["port"], "name": wanted["location_name"]}
    assert values["dagsterWebserver"]["workspace"] == {"enabled": True, "servers": [server]}


def test_the_identities_are_the_ones_with_few_rights(values, helm):
    users = values["dagster-user-deployments"]
    assert values["rbacEnabled"] is users["rbacEnabled"] is False
    assert values["serviceAccount"] == {"create": False, "name": "daemon"}
    assert users["serviceAccount"] == {"create": False, "name": "code-location"}
    assert {"daemon", "code-location", "run"} <= helm.of("ServiceAccount").keys()
    with_token = [name for name, one in helm.of("ServiceAccount").items() if one["automountServiceAccountToken"]]
    assert with_token == ["daemon"]


def test_beside_the_chart_is_everything_but_dagster(helm, base):
    def names(rendering):
        return {(one["kind"], re.sub("-[a-z0-9]{10}$", "", one["metadata"]["name"])) for one in rendering.objects}

    dagster = {
        ("Job", "run"),
        ("ConfigMap", "dagster"),
        ("ConfigMap", "workspace"),
        ("Service", "code-location"),
        ("Service", "webserver"),
        *(("Deployment", name) for name in ("code-location", "daemon", "webserver")),
    }
    assert names(base) - names(helm) == dagster
    assert names(helm) <= names(base)
    assert helm.settings == base.settings
