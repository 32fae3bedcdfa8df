"""What every pod has to be, wherever its template stands: manifest, dagster.yaml, Spark's configuration, workflow."""

import re

import yaml

UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def size(text):
    """Bytes, of Kubernetes's and of Java's notation."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
    return int(number) * UNITS[unit]


def heap(rendering, pod, container):
    """The most that a container's JVM takes for objects; nothing where there is no JVM."""
    if pod.component in ("kafka", "create-topic"):
        return size(re.search(r"-Xmx(\w+)", rendering.environment(container)["KAFKA_HEAP_OPTS"])[1])
    if pod.component == "spark":
        return size(spark_conf(rendering)["spark.driver.memory"])
    return 0


def spark_conf(rendering):
    """Spark's properties."""
    lines = rendering.get("ConfigMap", "spark")["data"]["spark.conf"].splitlines()
    return dict(line.split(maxsplit=1) for line in lines if not line.startswith("#"))


def test_it_is_no_root_and_cannot_become_one(rendering):
    for name, pod in rendering.pods().items():
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] >= 100, name
        assert context["runAsGroup"] >= 100, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), name
        for container in pod.containers:
            rights = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == rights, (name, container["name"])


def test_it_can_write_its_temporary_files_and_the_group_may_write_its_volume(rendering):
    for name, pod in rendering.pods().items():
        for container in pod.containers:
            mounts = pod.mounts(container)
            assert "emptyDir" in mounts["/tmp"], (name, container["name"])
            writes = any("persistentVolumeClaim" in volume for volume in mounts.values())
            assert not writes or pod.spec["securityContext"]["fsGroup"] == 1000, name


def test_it_mounts_only_volumes_that_it_has_and_has_only_what_it_mounts(rendering):
    for name, pod in rendering.pods().items():
        template = rendering.of("StatefulSet").get(name, {"spec": {}})["spec"]
        volumes = {one["name"] for one in pod.spec["volumes"]}
        volumes |= {one["metadata"]["name"] for one in template.get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert mounted == volumes, name


def test_no_variable_comes_from_other_services(rendering):
    for name, pod in rendering.pods().items():
        assert pod.spec["enableServiceLinks"] is False, name


def test_only_who_asks_the_api_server_has_a_token(rendering):
    wanted = {
        "local": {"daemon", "webserver"},
        "small": {"daemon", "webserver"},
        "scale": {"daemon", "webserver", "spark"},
        "production": {"daemon", "webserver", "spark"},
    }
    with_token = {name for name, pod in rendering.pods().items() if pod.spec["automountServiceAccountToken"]}
    assert with_token == wanted.get(rendering.name, set())


def test_its_memory_has_a_limit_and_a_jvm_fits_into_it(rendering):
    for name, pod in rendering.pods().items():
        if name == "spark-executor":
            continue  # its size is in spark.conf
        for container in pod.containers:
            resources = container["resources"]
            assert resources["requests"].keys() == {"cpu", "memory"}, name
            limit = size(resources["limits"]["memory"])
            assert size(resources["requests"]["memory"]) <= limit, name
            # A JVM takes about a third of its heap beside it.
            assert 4 * heap(rendering, pod, container) <= 3 * limit, name


def test_executors_have_a_size_and_spark_fills_in_the_template(overlay):
    if "spark-executor" not in overlay.pods():
        assert overlay.name in ("local", "small")
        return
    conf = spark_conf(overlay)
    # As much beside the heap as in it, for the Python workers.
    assert size(conf["spark.executor.memoryOverhead"]) >= size(conf["spark.executor.memory"])
    (container,) = overlay.pods()["spark-executor"].containers
    assert conf["spark.kubernetes.executor.podTemplateContainerName"] == container["name"]
    server = overlay.pods()["spark"]
    folder, _, file = conf["spark.kubernetes.executor.podTemplateFile"].rpartition("/")
    source = server.mounts(server.serves[0])[folder]["configMap"]["name"]
    assert yaml.safe_load(overlay.of("ConfigMap")[source]["data"][file])["kind"] == "Pod"


def test_the_rollout_waits_until_it_serves_and_what_hangs_is_started_again(overlay):
    for name in overlay.of("Deployment") | overlay.of("StatefulSet"):
        for container in overlay.pods()[name].serves:
            if container.get("ports"):
                assert {"startupProbe", "readinessProbe"} <= container.keys(), name
            assert "livenessProbe" in container or name == "postgres", name


def test_every_image_has_one_version(rendering):
    for name, pod in rendering.pods().items():
        for container in pod.containers:
            if name == "spark-executor":
                assert "image" not in container  # spark.kubernetes.container.image
                continue
            tag = re.search(r"(?<=:)[\w.-]+$", container["image"])
            assert tag is not None, (name, container["image"])
            assert tag[0] != "latest", name
