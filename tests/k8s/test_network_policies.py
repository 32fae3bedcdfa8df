"""Who may talk to whom: all of it, and nothing besides. Policies are evaluated as Kubernetes does."""

from itertools import product

import pytest

DAGSTER = {
    "daemon -> code-location:3030",
    "webserver -> code-location:3030",
    "daemon -> api-server:443",
    "webserver -> api-server:443",
}
POSTGRES = {f"{who} -> postgres:5432" for who in ("daemon", "webserver", "code-location", "run_worker")}
KAFKA = {f"{who} -> kafka:9092" for who in ("code-location", "run_worker", "create-topic", "kafka")}
SPARK = {f"{who} -> spark:15002" for who in ("code-location", "run_worker")}
EXECUTORS = {
    "spark -> api-server:443",
    "spark -> spark-executor:any",
    "spark-executor -> spark-executor:any",
    "spark-executor -> spark:7078",
    "spark-executor -> spark:7079",
}
OUTSIDE = {f"{who} -> postgres.example.com:5432" for who in ("daemon", "webserver", "code-location", "run_worker")}
OUTSIDE |= {f"{who} -> kafka.example.com:9093" for who in ("code-location", "run_worker")}
ALLOWED = {
    "small": DAGSTER | POSTGRES | KAFKA,
    "local": DAGSTER | POSTGRES | KAFKA | SPARK,
    "scale": DAGSTER | POSTGRES | KAFKA | SPARK | EXECUTORS,
    "production": DAGSTER | OUTSIDE | SPARK | EXECUTORS,
}
SERVERS_OUTSIDE = {"api-server": 443, "postgres.example.com": 5432, "kafka.example.com": 9093}


def selects(selector, labels):
    """Whether a label selector is true of labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] in ("In", "Exists")
        value = labels.get(expression["key"])
        if value is None or value not in expression.get("values", [value]):
            return False
    return True


def allows(policies, direction, labels, peer, port, protocol="TCP"):
    """Whether a pod may send to (egress) or get from (ingress) a peer, which has no labels outside of the cluster."""
    found = [
        policy["spec"]
        for policy in policies
        if direction.title() in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], labels)
    ]
    for rule in (rule for policy in found for rule in policy.get(direction, [])):
        peers = rule.get("to" if direction == "egress" else "from")
        ports = [(one["port"], one.get("protocol", "TCP")) for one in rule.get("ports", [])]
        matches = peers is None or any(peer is not None and selects(one["podSelector"], peer) for one in peers)
        if matches and (not ports or (port, protocol) in ports):
            return True
    return not found


def links(rendering, policies):
    """Every connection that the policies allow, as `from -> to:port`."""
    pods = rendering.pods().values()
    listening = {
        (pod.component, one["containerPort"])
        for pod in pods
        for container in pod.containers
        for one in container.get("ports", [])
    } | {("spark-executor", "any")}
    found = set()
    for source, target in product(pods, pods):
        for component, port in listening:
            if (
                component == target.component
                and allows(policies, "egress", source.labels, target.labels, port)
                and allows(policies, "ingress", target.labels, source.labels, port)
            ):
                found.add(f"{source.component} -> {component}:{port}")
    for source, (host, port) in product(pods, SERVERS_OUTSIDE.items()):
        if allows(policies, "egress", source.labels, None, port):
            found.add(f"{source.component} -> {host}:{port}")
    return found


def test_what_no_policy_names_is_cut_off(overlay):
    policies = overlay.of("NetworkPolicy").values()
    for direction in ("egress", "ingress"):
        assert not allows(policies, direction, {"app": "stranger"}, {"app": "stranger"}, 80)


def test_everyone_may_ask_for_names(overlay):
    policies = overlay.of("NetworkPolicy").values()
    for name, pod in overlay.pods().items():
        for protocol in ("UDP", "TCP"):
            assert allows(policies, "egress", pod.labels, None, 53, protocol), (name, protocol)


def test_who_has_to_talk_can_and_nobody_else(overlay):
    assert links(overlay, overlay.of("NetworkPolicy").values()) == ALLOWED[overlay.name]


@pytest.mark.parametrize("version", ["jobs", "argo"])
def test_the_steps_of_jobs_and_workflow_reach_what_a_run_reaches(version, overlay, request):
    steps = request.getfixturevalue(version)
    policies = [*overlay.of("NetworkPolicy").values(), *steps.of("NetworkPolicy").values()]
    servers = [pod for name, pod in overlay.pods().items() if name != "run"]
    for pod in steps.pods().values():
        assert pod.component == overlay.pods()["run"].component
        for link in ALLOWED[overlay.name]:
            source, _, target = link.partition(" -> ")
            host, _, port = target.partition(":")
            if source == "run_worker":
                server = next((one.labels for one in servers if one.component == host), None)
                assert allows(policies, "egress", pod.labels, server, int(port)), link
                assert server is None or allows(policies, "ingress", server, pod.labels, int(port)), link
        # Argo's executor reports to the API server from within the same pod.
        assert allows(policies, "egress", pod.labels, None, 443) is (version == "argo")
