"""Overlay `small`: what each identity may do, and what no container can."""

import json
import subprocess

import pytest

OVERLAY = "small"
pytestmark = pytest.mark.cluster

# Beyond what every authenticated identity may: to ask what it may, and to read the API's own description.
MAY = {
    "daemon": {
        "jobs.batch": ["create", "delete", "get", "list"],
        "jobs.batch/status": ["get"],
        "pods": ["delete", "get", "list"],
        "pods/log": ["get"],
        "events": ["list"],
    },
    "webserver": {
        "jobs.batch": ["delete", "get", "list"],
        "jobs.batch/status": ["get"],
        "pods": ["delete", "get", "list"],
    },
    "code-location": {},
    "run": {},
    "default": {},
}
WITH_TOKEN = {"daemon", "webserver"}
LOOK = """
id -u
(touch /here && echo writable) 2> /dev/null || echo read-only
grep CapEff /proc/self/status | cut -f 2
[ -e /var/run/secrets/kubernetes.io/serviceaccount/token ] && echo token || echo none
"""
ROOT_POD = """
apiVersion: v1
kind: Pod
metadata: {name: root}
spec: {containers: [{name: root, image: "busybox:1.36", securityContext: {runAsUser: 0}}]}
"""


@pytest.mark.parametrize("identity", MAY)
def test_what_an_identity_may_do(cluster, kubectl, identity):
    listed = kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:lakehouse:{identity}", "--no-headers")
    granted = {}
    for line in listed.splitlines():
        resource = line.split()[0]
        if resource.startswith(("[", "self")):
            continue
        verbs = line[line.rindex("[") + 1 : line.rindex("]")].split()
        granted[resource] = sorted({*granted.get(resource, []), *verbs})
    assert granted == MAY[identity]


def test_the_namespace_refuses_a_root_pod(cluster):
    words = ["kubectl", "-n", "lakehouse", "apply", "--filename=-"]
    refused = subprocess.run(words, input=ROOT_POD, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr


def test_no_container_is_root_or_writes_its_root_or_has_a_capability_or_a_token_too_many(cluster, kubectl, eventually):
    cluster.quiet()
    run = cluster.launch("lakehouse")
    eventually(lambda: cluster.pod_of(run), 60, "the run has a pod")
    pods = json.loads(kubectl("get", "pods", "--field-selector=status.phase=Running", "--output=json"))["items"]
    seen = set()
    for pod in pods:
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for container in pod["spec"]["containers"]:
            words = ["exec", pod["metadata"]["name"], f"--container={container['name']}", "--", "sh", "-c", LOOK]
            user, root, capabilities, token = kubectl(*words).split()
            assert user not in ("", "0"), component
            assert (root, int(capabilities, 16)) == ("read-only", 0), component
            assert (token == "token") == (component in WITH_TOKEN), component
        seen.add(component)
    assert seen == {"code-location", "daemon", "webserver", "kafka", "postgres", "run_worker"}
    assert cluster.finished(run)["status"] == "SUCCESS"
