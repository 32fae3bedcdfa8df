"""k8s/deploy, up to what it gives to the cluster."""

import os
import re
import subprocess

import pytest

KUBECTL = """#!/bin/sh
case "$*" in
  kustomize*) exec {kubectl} "$@" ;;
  *"apply -f -") cat > {applied} ;;
esac
"""


@pytest.fixture
def deployed(kubectl, tmp_path, pytestconfig):
    """What `k8s/deploy OVERLAY TAG` applies; the kubectl that it finds renders, and reaches no cluster."""

    def run(overlay, tag):
        applied = tmp_path / "applied"
        (tmp_path / "kubectl").write_text(KUBECTL.format(kubectl=kubectl, applied=applied))
        (tmp_path / "kubectl").chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": os.devnull}
        command = [str(pytestconfig.rootpath / "k8s/deploy"), overlay, tag]
        subprocess.run(command, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL)
        return applied.read_text()

    return run


def images(text):
    """Every mention of an image of ours."""
    return re.findall(r"[\w./-]*lakehouse-(?:dagster|spark)[:@][\w.:-]+", text)


@pytest.mark.parametrize("name", ["local", "small", "scale"])
def test_the_tag_reaches_every_mention_of_an_image(deployed, overlay_of, name):
    before, after = overlay_of(name).text, deployed(name, "v1.2")
    assert images(after) == [image.replace(":dev", ":v1.2") for image in images(before)]
    assert len(images(after)) >= 5
    assert ":dev" not in after
    assert after.replace(":v1.2", ":dev") == before


def test_a_digest_stays_what_it_is(deployed, overlay_of):
    assert deployed("production", "v1.2") == overlay_of("production").text
