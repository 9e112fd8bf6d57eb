"""Workers scaled to zero: a request starts the first one and is answered by it, and it is stopped
when there are none.

The release, its gateway, its worker and Prometheus are real. KEDA is not: its part is played here,
by what the release's ScaledObject says: the query, asked of that Prometheus, the thresholds, and
the cooldown.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from prometheus_client import REGISTRY

import service.observability.metrics  # noqa: F401  # what the service exports
from tests.deploy.chart import objects, one
from tests.deploy.cluster.api import Cluster
from tests.deploy.cluster.catalogue import DEPLOYMENT, SCALED_OBJECT
from tests.deploy.cluster.pods import is_ready
from tests.deploy.helm import CHART, Helm, helm_on
from tests.deploy.node import ADDRESS, Node, is_possible
from tests.deploy.test_install import SPACE, pods, replicas, restricted
from tests.processes import Process, eventually

PROMETHEUS = f"http://{ADDRESS}:9090"
LONG = 900_000
"""Milliseconds for a start on a machine that has other things to do."""
VALUES: dict[str, Any] = {
    "auth": {"enabled": False},
    "redis": {"enabled": False},
    "service": {"port": 8000},
    "monitoring": {"scrape": "podMonitor"},
    "gateway": {
        "replicas": 1,
        "settings": {
            "RERANK_WAIT_FOR_WORKER_SECONDS": LONG / 1000,
            "RERANK_DEFAULT_TIMEOUT_MS": 600_000,
            "RERANK_GRACE_SECONDS": 615,
        },
    },
    "worker": {
        "startupSeconds": 10,
        "settings": {"RERANK_GRACE_SECONDS": 610},
        "autoscaling": {
            "enabled": True,
            "minReplicas": 0,
            "keda": {"prometheus": PROMETHEUS, "pollingInterval": 1, "cooldownSeconds": 10},
        },
    },
}
GAUGES = (
    "rerank_requests_queued",
    "rerank_requests_in_flight",
    "rerank_requests_waiting_for_worker",
    "rerank_stream_lines_in_flight",
)


def of_gateway(name: str, part: str = "gateway", **labels: str) -> str:
    """A series of the release, by its labels."""
    labels |= {"namespace": SPACE, "pod": f"rerank-{part}-5b6c-x1"}
    pairs = [f'{key}="{value}"' for key, value in labels.items()]
    return f"{name}{{{', '.join(pairs)}}}"


WAITING = "rerank_requests_waiting_for_worker"
TURNED_AWAY = of_gateway("rerank_shed_total", reason="no_worker")
DEMAND: dict[str, tuple[dict[str, str], float]] = {
    "nothing": ({TURNED_AWAY: "5x30"}, 0),
    "requests that wait": ({of_gateway(WAITING): "3x30"}, 3),
    "those of the canary": ({of_gateway(WAITING, "gateway-canary"): "3x30"}, 0),
    "a stream, whatever its lines": ({of_gateway("rerank_stream_lines_in_flight"): "32x30"}, 1),
    "everything": ({of_gateway(name): "2x30" for name in GAUGES}, 7),
    "ten that were turned away, four minutes ago": ({TURNED_AWAY: "0x15 10x14"}, 1),
    "ten that were turned away, six minutes ago": ({TURNED_AWAY: "0x13 10x16"}, 0),
    "those of load": ({of_gateway("rerank_shed_total", reason="queue_full"): "0+5x30"}, 0),
}
"""Series of gateways, and the demand for workers after 20 minutes."""
QUESTION = {"query": "sort a list", "documents": ["Close the file.", "Sort it in ascending order."]}


class Keda:
    """Plays KEDA's part for the release's ScaledObject, on a cluster whose node runs."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self._cluster = cluster
        self._node = node
        self.values: list[float] = []
        """The results of the query."""

    @contextmanager
    def running(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._work, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _work(self, over: threading.Event) -> None:
        spec = self._cluster.get(SCALED_OBJECT, SPACE, "rerank-worker")["spec"]
        (trigger,) = spec["triggers"]
        asked, active_at = trigger["metadata"], -math.inf
        while not over.wait(spec["pollingInterval"]):
            value = self._query(asked["serverAddress"], asked["query"])
            if value is None:
                continue
            self.values.append(value)
            number = self._replicas(spec["scaleTargetRef"]["name"])
            if value > float(asked["activationThreshold"]):
                active_at = time.monotonic()
                wanted = max(1, math.ceil(value / float(asked["threshold"])), number)
                self._scale(spec, min(wanted, spec["maxReplicaCount"]))
            elif time.monotonic() - active_at > spec["cooldownPeriod"]:
                self._scale(spec, spec["minReplicaCount"])

    def _query(self, address: str, query: str) -> float | None:
        """The one value of a query; None where Prometheus has no data yet."""
        url = f"{address}/api/v1/query?{urlencode({'query': query})}"
        said = self._node.inside("curl", "--silent", url)
        results = json.loads(said)["data"]["result"] if said.strip() else []
        return float(results[0]["value"][1]) if len(results) == 1 else None

    def _replicas(self, name: str) -> int:
        number: int = self._cluster.get(DEPLOYMENT, SPACE, name)["spec"]["replicas"]
        return number

    def _scale(self, spec: dict[str, Any], number: int) -> None:
        name = spec["scaleTargetRef"]["name"]
        patch = {"spec": {"replicas": number}}
        self._cluster.patch(DEPLOYMENT, SPACE, name, patch, strategic=True)


@contextmanager
def prometheus(node: Node, folder: Path, pod: str) -> Iterator[Process]:
    """A Prometheus on the node that scrapes the gateway, with the labels of a PodMonitor."""
    labels = {"namespace": SPACE, "pod": pod}
    scraped = {"targets": [f"{ADDRESS}:8000"], "labels": labels}
    config = folder / "prometheus.yaml"
    jobs = [{"job_name": "gateway", "scrape_interval": "1s", "static_configs": [scraped]}]
    config.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    options = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={ADDRESS}:9090",
    ]
    with Process(node.entering("prometheus", *options), folder / "prometheus.log") as process:
        yield process


def get(node: Node, path: str) -> dict[str, Any]:
    """The JSON of an answer of the gateway; empty where there is none."""
    said = node.inside("curl", "--silent", f"http://{ADDRESS}:8000{path}")
    answer: dict[str, Any] = json.loads(said) if said.strip() else {}
    return answer


def ask(node: Node) -> dict[str, Any]:
    """The answer to a request that waits for its worker."""
    header = ("--header", "content-type: application/json", "--data", json.dumps(QUESTION))
    said = node.inside("curl", "--silent", *header, f"http://{ADDRESS}:8000/rerank")
    answer: dict[str, Any] = json.loads(said)
    return answer


def gateway_is_ready(helm: Helm) -> bool:
    return any(is_ready(pod) for pod in pods(helm, "gateway"))


def test_the_demand_counts_what_a_worker_is_for(tmp_path: Path) -> None:
    (trigger,) = one(objects(VALUES), "ScaledObject", "rerank-worker")["spec"]["triggers"]
    cases = []
    for name, (series, demand) in DEMAND.items():
        given = {of_gateway(gauge): "0x30" for gauge in GAUGES} | series
        asked = {"expr": trigger["metadata"]["query"], "eval_time": "20m"}
        cases.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": key, "values": each} for key, each in given.items()],
                "promql_expr_test": [asked | {"exp_samples": [{"labels": "{}", "value": demand}]}],
            }
        )
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": cases}))
    command = ["promtool", "test", "rules", str(tmp_path / "cases.yaml")]
    tested = subprocess.run(command, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr

    exported = {metric.name for metric in REGISTRY.collect()}
    named = re.findall("rerank_[a-z_]+(?=[{])", trigger["metadata"]["query"])
    assert {name.removesuffix("_total") for name in named} <= exported
    assert trigger["metadata"]["ignoreNullValues"] == "false"


@pytest.mark.slow
@pytest.mark.skipif(
    not is_possible(),
    reason="Pods become processes with mounts of their own, which takes root and overlayfs",
)
def test_a_request_starts_the_first_worker_and_the_last_one_is_stopped_without_requests(
    tmp_path: Path,
) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(VALUES))
    (tmp_path / "node").mkdir()
    node = Node(tmp_path / "node")
    cluster = restricted(Cluster(runtime=node, operators=True))
    with helm_on(cluster, tmp_path / "helm", SPACE) as helm:
        helm("install", "rerank", CHART, "--values", tmp_path / "values.yaml")
        idle = {"spec": {"replicas": 0}}  # KEDA's, after the cooldown; nothing runs yet
        cluster.patch(DEPLOYMENT, SPACE, "rerank-worker", idle, strategic=True)
        with node.running(cluster):
            eventually(lambda: gateway_is_ready(helm), why=node.said)
            (gateway,) = pods(helm, "gateway")
            name, keda = gateway["metadata"]["name"], Keda(cluster, node)
            with prometheus(node, tmp_path, name) as scraper, keda.running():
                _expect_idle(node, helm, keda, scraper)
                with ThreadPoolExecutor() as threads:
                    asked = threads.submit(ask, node)
                    eventually(lambda: replicas(helm, "rerank-worker") == 1, why=scraper.said)
                    assert [each["index"] for each in asked.result()["results"]] == [1, 0]
                assert max(keda.values) >= 1

                eventually(lambda: not pods(helm, "worker"), why=lambda: str(keda.values))
                assert replicas(helm, "rerank-worker") == 0
                eventually(lambda: "detail" in get(node, "/health/ready"), why=node.said)
                (model,) = get(node, "/v1/models")["data"]
                assert (model["id"], model["ready"]) == ("gmr-tiny", False)
                assert gateway_is_ready(helm)


def _expect_idle(node: Node, helm: Helm, keda: Keda, scraper: Process) -> None:
    """Expect no worker, a gateway that says so, and a query that finds nothing to do."""
    eventually(lambda: keda.values, why=scraper.said)
    assert set(keda.values) == {0.0}
    assert replicas(helm, "rerank-worker") == 0
    assert get(node, "/health/ready")["detail"].startswith("No worker is ready")
    assert get(node, "/v1/models")["code"] == "no_worker"
