"""The chart's pods as processes: the rendered release starts, finds its secrets, Redis and
workers, and answers a request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deploy.cluster.api import Cluster
from tests.deploy.cluster.catalogue import POD
from tests.deploy.cluster.pods import is_ready
from tests.deploy.helm import CHART, helm_on
from tests.deploy.node import ADDRESS, Node, is_possible
from tests.deploy.test_install import SPACE, pods, restricted, secret
from tests.processes import eventually

ONE_OF_EACH = "gateway.replicas=1,service.port=8000"  # all Pods share an address
# on a machine that has other things to do
PATIENT = "gateway.settings.RERANK_REDIS_TIMEOUT_MS=5000"
WAIT = ("--wait", "--timeout", "600s")
QUESTION = {
    "query": "how do I sort a list",
    "documents": ["Close the file.", "Sort the list in ascending order."],
}


def cached(node: Node, key: str) -> int:
    """Ask the gateway, and say how many of the scores it had."""
    headers = (
        "--header",
        f"authorization: Bearer {key}",
        "--header",
        "content-type: application/json",
    )
    asked = (*headers, "--data", json.dumps(QUESTION), f"http://{ADDRESS}:8000/rerank")
    answer = json.loads(node.inside("curl", "--silent", "--fail", *asked) or node.said())
    count: int = answer["meta"]["cached_pairs"]
    return count


@pytest.mark.slow
@pytest.mark.skipif(
    not is_possible(),
    reason="Pods become processes with mounts of their own, which takes root and overlayfs",
)
def test_the_default_release_answers(tmp_path: Path) -> None:
    """And what it has answered outlives its gateway: Redis lets it in, and does what it is
    asked."""
    folder = tmp_path / "node"
    folder.mkdir()
    node = Node(folder)
    cluster = restricted(Cluster(runtime=node))
    with helm_on(cluster, tmp_path / "helm", SPACE) as helm, node.running(cluster):
        done = helm.run("install", "rerank", CHART, "--set", f"{ONE_OF_EACH},{PATIENT}", *WAIT)
        assert done.returncode == 0, done.stderr + node.said()
        tested = helm.run("test", "rerank", "--timeout", "600s")
        assert tested.returncode == 0, tested.stderr + node.said()
        for pod in cluster.store.list(POD, SPACE):
            for container in pod["spec"]["containers"]:
                assert node.passes(pod, container["name"], "livenessProbe"), node.said()
        key = secret(helm)["api-key"]
        assert cached(node, key) == 0
        (gateway,) = pods(helm, "gateway")
        cluster.delete(POD, SPACE, gateway["metadata"]["name"])
        eventually(lambda: [pod for pod in pods(helm, "gateway") if is_ready(pod)], why=node.said)
        assert cached(node, key) == len(QUESTION["documents"]), node.said()
    assert "gmr-tiny" in (folder / "rerank-test-ask.log").read_text()
