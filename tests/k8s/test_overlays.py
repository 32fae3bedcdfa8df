"""What holds an overlay together: names that stand in strings, images, settings, rights; and no secret in it."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from click import Context, Group
from dagster._cli import create_dagster_cli
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.ref import InstanceRef
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver

from lakehouse_dagster import definitions

DAGSTER = {"code-location", "daemon", "webserver", "run"}
IN_CLUSTER = {"kafka", "create-topic", "postgres"}
PODS = {
    "small": DAGSTER | IN_CLUSTER,
    "local": DAGSTER | IN_CLUSTER | {"spark"},
    "scale": DAGSTER | IN_CLUSTER | {"spark", "spark-executor"},
    "production": DAGSTER | {"spark", "spark-executor"},
}
ENVIRONMENT = set(re.findall(r"os\.environ\.get\(\"(\w+)\"\)", Path(definitions.__file__).read_text()))
NOT_EVERYWHERE = {"SPARK_REMOTE", "KAFKA_PROPERTIES_FILE"}
READ_BY_LIBPQ = {"PGSSLMODE", "PGSSLROOTCERT"}
SECRETS = {"postgres": {"postgresql-password"}}


def variables(config):
    """The names that a dagster.yaml wants from the environment."""
    if isinstance(config, dict):
        if config.keys() == {"env"}:
            return {config["env"]}
        config = list(config.values())
    return {name for one in config for name in variables(one)} if isinstance(config, list) else set()


def test_it_renders_into_its_own_namespace_under_unique_names(rendering):
    names = [(one["kind"], one["metadata"]["name"]) for one in rendering.objects]
    assert sorted(set(names)) == sorted(names)
    for one in rendering.objects:
        namespace = one["metadata"]["name"] if one["kind"] == "Namespace" else one["metadata"]["namespace"]
        assert namespace == "lakehouse"


def test_these_are_its_pods(overlay):
    assert overlay.pods().keys() == PODS[overlay.name]


def test_what_a_pod_names_exists(rendering, overlay_of):
    deployed = rendering if rendering.name in PODS else overlay_of("local")
    for name, pod in rendering.pods().items():
        account = pod.spec.get("serviceAccountName", "default")
        assert account in {"default", *deployed.of("ServiceAccount")}, name
        for volume in pod.spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in deployed.of("PersistentVolumeClaim"), name
            if "configMap" in volume:
                assert volume["configMap"]["name"] in deployed.of("ConfigMap"), name
            if "secret" in volume:
                # Only where Kafka wants a certificate; production's settings read it.
                assert volume["secret"] == {"secretName": "kafka-client", "optional": True}, name
        for container in pod.containers:
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in deployed.of("ConfigMap"), name
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                if "secretKeyRef" in source:
                    assert source["secretKeyRef"]["key"] in SECRETS[source["secretKeyRef"]["name"]], name
                if "configMapKeyRef" in source:
                    data = deployed.of("ConfigMap")[source["configMapKeyRef"]["name"]]["data"]
                    assert source["configMapKeyRef"]["key"] in data, name


def test_a_service_has_pods_behind_it_and_their_port(overlay):
    for name, service in overlay.of("Service").items():
        selector = service["spec"]["selector"].items()
        behind = [pod for pod in overlay.pods().values() if selector <= pod.labels.items()]
        assert behind, name
        for pod in behind:
            ports = [port for container in pod.serves for port in container.get("ports", [])]
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                assert any(target in (one["name"], one["containerPort"]) for one in ports), (name, target)


def test_the_addresses_in_the_settings_are_services_of_the_cluster_or_outside(overlay):
    settings = overlay.settings
    addresses = {settings["KAFKA_BOOTSTRAP_SERVERS"], f"{settings['DAGSTER_PG_HOST']}:5432"}
    if "SPARK_REMOTE" in settings:
        addresses.add(settings["SPARK_REMOTE"].removeprefix("sc://"))
    workspace = yaml.safe_load(overlay.get("ConfigMap", "workspace")["data"]["workspace.yaml"])
    addresses |= {f"{one['grpc_server']['host']}:{one['grpc_server']['port']}" for one in workspace["load_from"]}
    for address in addresses:
        host, _, port = address.partition(":")
        if overlay.name != "production" or not host.endswith(".example.com"):
            ports = overlay.of("Service")[host]["spec"]["ports"]
            assert int(port) in [one["port"] for one in ports], address


def test_the_code_location_has_the_same_name_everywhere(overlay):
    workspace = yaml.safe_load(overlay.get("ConfigMap", "workspace")["data"]["workspace.yaml"])
    (served,) = [one["grpc_server"]["location_name"] for one in workspace["load_from"]]
    command = overlay.pods()["code-location"].serves[0]["command"]
    assert served == command[command.index("--location-name") + 1]
    local = yaml.safe_load((Path(__file__).parents[2] / "workspace.yaml").read_text())
    assert served == local["load_from"][0]["python_module"]["location_name"]


def test_dagster_has_the_commands_that_are_asked_of_it(rendering, tmp_path):
    programs = {
        "dagster": create_dagster_cli(),
        "dagster-daemon": create_dagster_daemon_cli(),
        "dagster-webserver": dagster_webserver,
    }
    (tmp_path / "workspace.yaml").touch()
    asked = 0
    for pod in rendering.pods().values():
        for container in pod.containers:
            probes = [container.get(f"{name}Probe", {}) for name in ("startup", "readiness", "liveness")]
            for words in [container.get("command"), *(probe.get("exec", {}).get("command") for probe in probes)]:
                if words and words[0] in programs:
                    words = [word.replace("/opt/workspace", str(tmp_path)) for word in words]
                    name, command, rest = words[0], programs[words[0]], words[1:]
                    while isinstance(command, Group):
                        name, command, rest = command.resolve_command(Context(command), rest)
                    command.make_context(name, rest)  # raises where an option is unknown or wrong
                    asked += 1
    assert asked >= 4


def test_dagster_yaml_is_what_dagster_takes(overlay, tmp_path, monkeypatch):
    (tmp_path / "dagster.yaml").write_text(overlay.get("ConfigMap", "dagster")["data"]["dagster.yaml"])
    for name in variables(overlay.instance):
        monkeypatch.setenv(name, "something")
    instance = InstanceRef.from_dir(str(tmp_path))  # raises where a section or a setting is unknown
    plugged_in = {
        "storage": instance.storage_data,
        "compute_logs": instance.compute_logs_data,
        "run_coordinator": instance.run_coordinator_data,
        "run_launcher": instance.run_launcher_data,
    }
    assert plugged_in.keys() <= overlay.instance.keys()
    for section, data in plugged_in.items():
        cls = getattr(importlib.import_module(data.module_name), data.class_name)
        processed = process_config(resolve_to_config_type(cls.config_type()), data.config_dict)
        assert processed.success, (section, processed.errors)


def test_what_dagster_yaml_and_the_definitions_read_is_there(rendering, overlay_of):
    deployed = rendering if rendering.name in PODS else overlay_of("local")
    wanted = variables(deployed.instance)
    assert {"POD_NAMESPACE", "DAGSTER_PG_PASSWORD", "DAGSTER_PG_HOST"} <= wanted
    for name, pod in rendering.pods().items():
        loads_definitions = pod.component in ("code-location", "run_worker")
        if pod.component in ("daemon", "webserver") or loads_definitions:
            for container in pod.containers:
                environment = deployed.environment(container)
                assert wanted <= environment.keys(), name
                assert environment["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}, name
                assert not loads_definitions or environment.keys() >= ENVIRONMENT - NOT_EVERYWHERE, name


def test_every_setting_is_read_by_something(overlay):
    assert {"LAKEHOUSE_ROOT", *NOT_EVERYWHERE} < ENVIRONMENT
    assert overlay.settings.keys() <= ENVIRONMENT | READ_BY_LIBPQ | variables(overlay.instance)


def test_paths_in_the_settings_are_volumes_of_who_follows_them(overlay):
    lake, logs = overlay.settings["LAKEHOUSE_ROOT"], overlay.instance["compute_logs"]["config"]["base_dir"]
    assert Path(logs).is_relative_to(lake)
    for name, pod in overlay.pods().items():
        mounts = pod.mounts(pod.serves[0])
        if name in ("code-location", "run", "spark", "spark-executor", "webserver"):
            assert mounts[lake]["persistentVolumeClaim"]["claimName"] == "lake", name
        if name in ("code-location", "run") and "KAFKA_PROPERTIES_FILE" in overlay.settings:
            assert mounts[str(Path(overlay.settings["KAFKA_PROPERTIES_FILE"]).parent)]["secret"], name
        if name in ("code-location", "daemon", "webserver"):
            assert mounts["/opt/dagster"]["configMap"], name


def test_runs_and_executors_get_the_image_of_who_starts_them(overlay):
    code_location, run = (overlay.pods()[name].serves[0] for name in ("code-location", "run"))
    assert overlay.environment(code_location)["DAGSTER_CURRENT_IMAGE"] == code_location["image"] == run["image"]
    if "spark-executor" in overlay.pods():
        (server,) = overlay.pods()["spark"].serves
        assert overlay.environment(server)["SPARK_IMAGE"] == server["image"]
        assert "spark.kubernetes.container.image=$(SPARK_IMAGE)" in server["args"]


def test_everything_of_ours_runs_one_version_which_in_production_is_a_digest(overlay):
    images = {container.get("image") for pod in overlay.pods().values() for container in pod.containers}
    ours = sorted(image for image in images if image and "lakehouse-" in image)
    names = [re.split("[:@]", image)[0] for image in ours]
    assert len(set(names)) == len(names) == (1 if overlay.name == "small" else 2)
    for image in ours:
        assert re.fullmatch(r"registry\.example\.com/.*@sha256:[0-9a-f]{64}", image) or overlay.name != "production"


def test_no_secret_is_in_it(rendering):
    for name, secret in rendering.of("Secret").items():
        assert not secret.keys() & {"data", "stringData"}, name
    for name, settings in rendering.of("ConfigMap").items():
        for key, value in settings["data"].items():
            assert not re.search("PASSWORD|SECRET|TOKEN", key), name
            assert not re.search(r"(?i)(password|passwd|token)['\"]?\s*[:=]\s*['\"]?(?!false|true)\w", value), name
            assert not re.search(r"://[^/\s]*:[^/\s]*@", value), name
    for name, pod in rendering.pods().items():
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search("PASSWORD|SECRET|TOKEN", variable["name"]):
                    assert variable.get("valueFrom", {}).keys() == {"secretKeyRef"}, (name, variable["name"])


DAEMON = {
    ("batch", "jobs"): {"create", "get", "list", "delete"},
    ("batch", "jobs/status"): {"get"},
    ("", "pods"): {"get", "list", "delete"},
    ("", "events"): {"list"},
    ("", "pods/log"): {"get"},
}
WEBSERVER = {
    ("batch", "jobs"): {"get", "list", "delete"},
    ("batch", "jobs/status"): {"get"},
    ("", "pods"): {"get", "list", "delete"},
}
SPARK = {
    ("", resource): {"create", "get", "list", "watch", "delete", "deletecollection", "patch"}
    for resource in ("pods", "configmaps", "services", "persistentvolumeclaims")
}
RIGHTS = {
    "small": {"daemon": DAEMON, "webserver": WEBSERVER, "code-location": {}, "run": {}},
    "local": {"daemon": DAEMON, "webserver": WEBSERVER, "code-location": {}, "run": {}, "spark": {}},
    "jobs": {},
    "argo": {"argo-executor": {("argoproj.io", "workflowtaskresults"): {"create", "patch"}}},
}
RIGHTS["scale"] = RIGHTS["production"] = RIGHTS["local"] | {"spark": SPARK, "spark-executor": {}}


def test_each_identity_has_exactly_these_rights(rendering):
    assert not rendering.of("ClusterRole")
    assert not rendering.of("ClusterRoleBinding")
    found = {name: {} for name in rendering.of("ServiceAccount")}
    for binding in rendering.of("RoleBinding").values():
        (subject,) = binding["subjects"]
        assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "lakehouse")
        assert binding["roleRef"]["kind"] == "Role"
        for rule in rendering.of("Role")[binding["roleRef"]["name"]]["rules"]:
            assert rule.keys() == {"apiGroups", "resources", "verbs"}
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found[subject["name"]].setdefault((group, resource), set()).update(rule["verbs"])
    assert found == RIGHTS[rendering.name]


def test_an_identity_gives_its_token_only_where_a_pod_asks(rendering):
    for name, account in rendering.of("ServiceAccount").items():
        assert account["automountServiceAccountToken"] is False, name


def test_a_drained_node_is_not_held_up(overlay):
    for name, budget in overlay.of("PodDisruptionBudget").items():
        assert overlay.of("Deployment")[name]["spec"]["replicas"] > budget["spec"]["minAvailable"]
        selector = budget["spec"]["selector"]["matchLabels"].items()
        assert selector <= overlay.pods()[name].labels.items()


def test_undeploy_keeps_the_tables(overlay):
    kept = [
        (one["kind"], one["metadata"]["name"])
        for one in overlay.objects
        if "lakehouse/keep" in one["metadata"].get("labels", {})
    ]
    assert sorted(kept) == [("Namespace", "lakehouse"), ("PersistentVolumeClaim", "lake")]


@pytest.mark.parametrize("version", ["jobs", "argo"])
def test_jobs_and_workflow_use_the_instance_of_every_overlay(version, overlay, request):
    steps = request.getfixturevalue(version)
    (name,) = steps.of("ConfigMap")
    assert steps.of("ConfigMap")[name] | {"metadata": {}} == overlay.of("ConfigMap")[name] | {"metadata": {}}
