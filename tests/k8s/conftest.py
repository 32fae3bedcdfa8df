"""What the manifests become, without a cluster: as kustomize renders them and, for runs, as the launcher sends them."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from lakehouse_dagster.definitions import defs

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = ["local", "small", "scale", "production"]
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Pod:
    """The template of a pod."""

    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def component(self) -> str:
        """Which one it is, as network policies tell them apart."""
        return self.labels[COMPONENT]

    @property
    def serves(self) -> list[dict[str, Any]]:
        """The containers that run for as long as the pod does."""
        return list(self.spec["containers"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers."""
        return [*self.spec.get("initContainers", []), *self.serves]

    def mounts(self, container: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """A container's volumes, by where they are mounted."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        return {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container.get("volumeMounts", [])}


class Rendering:
    """The objects of a kustomization."""

    def __init__(self, name: str, text: str, *more: dict[str, Any]) -> None:
        self.name = name
        self.text = text
        self.objects = [*yaml.safe_load_all(text), *more]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """The objects of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object; a generated ConfigMap by its name without the hash."""
        found = {key: one for key, one in self.of(kind).items() if key == name or key.rpartition("-")[0] == name}
        return found.get(name) or next(iter(found.values()))

    @property
    def settings(self) -> dict[str, str]:
        """The ConfigMap that every pod of ours has for its environment."""
        return dict(self.get("ConfigMap", "lakehouse")["data"])

    @property
    def instance(self) -> dict[str, Any]:
        """What dagster.yaml says."""
        return dict(yaml.safe_load(self.get("ConfigMap", "dagster")["data"]["dagster.yaml"]))

    def pods(self) -> dict[str, Pod]:
        """Every template of a pod, wherever it stands."""
        found = {}
        for kind in ("Deployment", "StatefulSet", "Job"):
            for name, one in self.of(kind).items():
                template = one["spec"]["template"]
                found[name] = Pod(template["metadata"]["labels"], template["spec"])
        for one in self.of("ConfigMap").values():
            if "executor.yaml" in one["data"]:
                executor = yaml.safe_load(one["data"]["executor.yaml"])
                found["spark-executor"] = Pod(executor["metadata"]["labels"], executor["spec"])
        for one in self.of("WorkflowTemplate").values():
            found |= _pods_of_workflow(one["spec"])
        return found

    def environment(self, container: Mapping[str, Any]) -> dict[str, Any]:
        """A container's variables; what is not known before it runs, as where it comes from."""
        found: dict[str, Any] = {}
        for source in container.get("envFrom", []):
            found |= self.get("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "configMapKeyRef" in source:
                data = self.get("ConfigMap", source["configMapKeyRef"]["name"])["data"]
                found[variable["name"]] = data[source["configMapKeyRef"]["key"]]
            else:
                found[variable["name"]] = source or variable["value"]
        return found


def _pods_of_workflow(spec: Mapping[str, Any]) -> dict[str, Pod]:
    """A pod for each step, put together as Argo does: the defaults, the step's own, and a label of the workflow.

    Argo's own containers, whose images and limits are its controller's affair, are left out.
    """
    labels = spec["podMetadata"]["labels"] | {"workflows.argoproj.io/workflow": "lakehouse-1"}
    shared = {name: spec[name] for name in ("serviceAccountName", "automountServiceAccountToken", "securityContext")}
    patch = yaml.safe_load(spec["podSpecPatch"])
    shared |= {"volumes": spec["volumes"]} | {name: patch[name] for name in patch if not name.endswith("ontainers")}
    return {
        step["name"]: Pod(
            labels,
            shared | {"containers": [{"name": "main"} | spec["templateDefaults"]["container"] | step["container"]]},
        )
        for step in spec["templates"]
        if "container" in step
    }


@pytest.fixture(scope="session")
def kubectl() -> str:
    """kubectl, which has kustomize in it."""
    found = shutil.which("kubectl")
    if found is None:
        assert "CI" not in os.environ, "kubectl is not installed, and CI must have it"
        pytest.skip("kubectl is not installed (it is one file: https://kubernetes.io/docs/tasks/tools)")
    return found


@pytest.fixture(scope="session")
def kustomize(kubectl: str) -> Callable[[str], str]:
    """Render a folder of k8s/."""

    @cache
    def render(folder: str) -> str:
        command = [kubectl, "kustomize", str(K8S / folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return render


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[str, Any]]]:
    """The Job that the run launcher of a dagster.yaml sends to Kubernetes, which here only writes down what it gets."""
    received: list[tuple[str, dict[str, Any]]] = []

    class Kubernetes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    threading.Thread(target=server.serve_forever).start()
    kubeconfig = tmp_path_factory.mktemp("kubernetes") / "config"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )

    def launched(run_launcher: dict[str, Any], image: str) -> dict[str, Any]:
        outside = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
        run_launcher = run_launcher | {"config": run_launcher["config"] | outside}
        pointer = ModuleCodePointer("lakehouse_dagster.definitions", "defs")
        origin = JobPythonOrigin("refresh", RepositoryPythonOrigin(sys.executable, pointer, container_image=image))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("POD_NAMESPACE", "lakehouse")
            home = str(tmp_path_factory.mktemp("dagster"))
            with dg.instance_for_test(temp_dir=home, overrides={"run_launcher": run_launcher}) as instance:
                run = instance.create_run_for_job(defs.resolve_job_def("refresh"), job_code_origin=origin)
                instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        path, job = received.pop()
        assert path == "/apis/batch/v1/namespaces/lakehouse/jobs"
        return job

    yield launched
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def overlay_of(kustomize: Callable[[str], str], launch: Callable[..., dict[str, Any]]) -> Callable[[str], Rendering]:
    """An overlay by its name, with the Job of a run as one more object: `run`."""

    @cache
    def render(name: str) -> Rendering:
        rendered = Rendering(name, kustomize(f"overlays/{name}"))
        code_location = rendered.pods()["code-location"].serves[0]
        job = launch(rendered.instance["run_launcher"], rendered.environment(code_location)["DAGSTER_CURRENT_IMAGE"])
        job["metadata"] |= {"name": "run", "namespace": "lakehouse"}
        return Rendering(name, rendered.text, job)

    return render


@pytest.fixture(scope="session", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, overlay_of: Callable[[str], Rendering]) -> Rendering:
    """Each overlay."""
    return overlay_of(request.param)


@pytest.fixture(scope="session")
def jobs(kustomize: Callable[[str], str]) -> Rendering:
    """The Jobs of version A."""
    return Rendering("jobs", kustomize("jobs"))


@pytest.fixture(scope="session")
def argo(kustomize: Callable[[str], str]) -> Rendering:
    """The workflow of version B."""
    return Rendering("argo", kustomize("argo"))


@pytest.fixture(scope="session")
def helm(kustomize: Callable[[str], str]) -> Rendering:
    """What is beside Dagster's Helm chart."""
    return Rendering("helm", kustomize("helm"))


@pytest.fixture(scope="session", params=[*OVERLAYS, "jobs", "argo"])
def rendering(request: pytest.FixtureRequest, overlay_of: Callable[[str], Rendering]) -> Rendering:
    """Each overlay, the Jobs and the workflow."""
    if request.param in OVERLAYS:
        return overlay_of(request.param)
    found: Rendering = request.getfixturevalue(request.param)
    return found
