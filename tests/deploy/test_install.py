"""The chart on a cluster: real helm with a simulated API server (`tests/deploy/cluster`), which
runs no containers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.cluster.api import RESTRICTED, Cluster
from tests.deploy.cluster.audit import audit
from tests.deploy.cluster.catalogue import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    POD,
    QUOTA,
    SCALED_OBJECT,
    SECRET,
    SERVICE,
)
from tests.deploy.cluster.environment import data_of
from tests.deploy.cluster.network import Peer, may_connect, peer
from tests.deploy.cluster.pods import is_ready, labels_of
from tests.deploy.cluster.scheduling import node
from tests.deploy.helm import CHART, Helm, chart_under_version, helm_on

pytestmark = pytest.mark.slow
WAIT = ("--wait", "--timeout", "600s")
IN_VAIN = ("--wait", "--timeout", "3s")
SPACE = "search"
GPU = {"nvidia_com__gpu": "4"}
GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
LARGE = (
    node("small", cpu="16", memory="64Gi"),
    *(
        node(f"gpu-{number}", cpu="64", memory="512Gi", taints=[GPU_TAINT], **GPU)
        for number in range(2)
    ),
)
FROM_REGISTRY = (
    "registry.url=s3://models",
    "registry.name=ours",
    f"registry.digest=sha256:{'5' * 64}",
)
ROUTE = "httpRoute.parentRefs[0].name=public,httpRoute.hostnames[0]=rerank.example.com"
ALL_PARTS = {
    "worker": {"workersPerGpu": 2},
    "canary": {
        "enabled": True,
        "share": 10,
        "model": {"registry": {"digest": f"sha256:{'6' * 64}"}},
    },
    "ingress": {"enabled": True, "hosts": ["rerank.example.com"]},
    "trainer": {
        "enabled": True,
        "claimName": "data",
        "config": "model: vec-ai/lychee-rerank-mm\noutput: runs/one\n",
        "publish": {"name": "ours", "registry": "s3://models"},
    },
    "evaluation": {"enabled": True, "claimName": "results"},
}
PROD = (
    "--values",
    CHART / "values-prod.yaml",
    "--set",
    ",".join(f"model.{value}" for value in FROM_REGISTRY),
    "--set",
    ROUTE,
)


def restricted(cluster: Cluster) -> Cluster:
    """The cluster with a namespace in which only Pods of the restricted profile may run."""
    metadata = {"name": SPACE, "labels": {RESTRICTED: "restricted"}}
    cluster.create(NAMESPACE, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return cluster


@pytest.fixture
def helm(tmp_path: Path) -> Iterator[Helm]:
    """Helm on one small node without a GPU."""
    with helm_on(restricted(Cluster()), tmp_path / "helm", SPACE) as helm:
        yield helm


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Helm]:
    """Helm on a cluster with tainted GPU nodes and with the operators that values-prod.yaml asks
    for."""
    with helm_on(
        restricted(Cluster(operators=True, nodes=LARGE)), tmp_path / "helm", SPACE
    ) as helm:
        yield helm


def findings(helm: Helm) -> list[str]:
    return audit(helm.cluster.store, helm.namespace)


def assert_sound(helm: Helm, release: str = "rerank") -> None:
    """`helm test` passes, and the audit finds nothing."""
    assert "Phase:          Succeeded" in helm("test", release)
    assert findings(helm) == []


def pods(helm: Helm, component: str) -> list[dict]:
    there = helm.cluster.store.list(POD, helm.namespace)
    return [pod for pod in there if labels_of(pod).get("app.kubernetes.io/component") == component]


def names(values: list[dict]) -> set[str]:
    return {value["metadata"]["name"] for value in values}


def secret(helm: Helm, name: str = "rerank-secrets") -> dict[str, str]:
    return data_of(helm.cluster.get(SECRET, helm.namespace, name))


def left_over(helm: Helm) -> set[str]:
    """The objects of the namespace, except its own service account."""
    keys = helm.cluster.store.within(helm.namespace)
    return {f"{key.resource.kind} {key.name}" for key in keys} - {"ServiceAccount default"}


def replicas(helm: Helm, name: str) -> int:
    count: int = helm.cluster.get(DEPLOYMENT, helm.namespace, name)["spec"]["replicas"]
    return count


def statuses(helm: Helm) -> list[str]:
    return [
        revision["status"] for revision in json.loads(helm("history", "rerank", "--output", "json"))
    ]


def test_one_command_brings_it_up_on_one_small_node(helm: Helm) -> None:
    notes = helm("install", "rerank", CHART, *WAIT)
    assert "port-forward service/rerank 8000:80" in notes
    assert_sound(helm)
    key = secret(helm)["api-key"]
    helm("uninstall", "rerank")
    assert left_over(helm) == {"Secret rerank-secrets"}
    helm("install", "rerank", CHART, *WAIT)
    assert secret(helm)["api-key"] == key


def test_the_previous_version_is_upgraded_and_comes_back(helm: Helm, tmp_path: Path) -> None:
    """No version is released yet: the previous one is this chart with an older number and older
    images."""
    helm("install", "rerank", chart_under_version(tmp_path, "0.0.9", "0.0.9"), *WAIT)
    secrets, old = secret(helm), names(pods(helm, "gateway"))
    helm("upgrade", "rerank", CHART, "--set", "gateway.replicas=3", *WAIT)
    assert_sound(helm)
    assert secret(helm) == secrets
    assert len(pods(helm, "gateway")) == 3
    assert not names(pods(helm, "gateway")) & old
    helm("rollback", "rerank", "1", *WAIT)
    assert replicas(helm, "rerank-gateway") == 2
    assert all(
        pod["spec"]["containers"][0]["image"].endswith(":0.0.9") for pod in pods(helm, "gateway")
    )
    assert secret(helm) == secrets
    assert_sound(helm)
    assert statuses(helm) == ["superseded", "superseded", "deployed"]


def test_an_upgrade_replaces_only_whom_it_concerns(helm: Helm, tmp_path: Path) -> None:
    """No pod if only the chart's version changes; gateways if one of their settings does."""
    helm("install", "rerank", chart_under_version(tmp_path, "0.0.9"), *WAIT)
    before = names(helm.cluster.store.list(POD, SPACE))
    helm("upgrade", "rerank", CHART, *WAIT)
    assert names(helm.cluster.store.list(POD, SPACE)) == before
    helm("upgrade", "rerank", CHART, "--set", "gateway.settings.RERANK_MAX_QUEUE_MS=2000", *WAIT)
    after = names(helm.cluster.store.list(POD, SPACE))
    assert after - before == names(pods(helm, "gateway"))
    assert len(after) == len(before)


def test_an_image_that_cannot_be_pulled_takes_nobody_down(helm: Helm) -> None:
    helm("install", "rerank", CHART, *WAIT)
    helm.cluster.missing_images.add("ghcr.io/gmr-rerank/gateway:9.9.9")
    complaint = helm.refused(
        "upgrade", "rerank", CHART, "--set", "gateway.image.tag=9.9.9", *IN_VAIN
    )
    assert "timed out waiting for the condition" in complaint
    assert sum(map(is_ready, pods(helm, "gateway"))) == 2
    assert any("9.9.9' cannot be pulled" in finding for finding in findings(helm))
    helm("rollback", "rerank", *WAIT)
    assert_sound(helm)
    assert statuses(helm) == ["superseded", "failed", "deployed"]


def test_a_secret_that_is_not_there_keeps_the_gateways_waiting(helm: Helm) -> None:
    missing = ("--set", "auth.existingSecret=absent")
    assert "timed out waiting for the condition" in helm.refused(
        "install", "rerank", CHART, *missing, *IN_VAIN
    )
    assert {finding.partition(": ")[2] for finding in findings(helm)} >= {
        "Secret 'absent' not found"
    }
    helm.cluster.create(
        SECRET,
        SPACE,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "absent"},
            "stringData": {"keys.json": '{"keys": []}'},
        },
    )
    helm("upgrade", "rerank", CHART, *missing, *WAIT)
    assert all(map(is_ready, pods(helm, "gateway")))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("gateway.replica=3", "Additional property replica is not allowed"),
        ("gateway.settings.RERANK_MAX_WAIT=1", "RERANK_MAX_WAIT"),
        ("gateway.replicas=-1", "gateway.replicas"),
        ("gateway.terminationGracePeriodSeconds=20", "gateway.terminationGracePeriodSeconds is 20"),
        ("externalRedis.url=redis://elsewhere:6379", "redis.enabled and externalRedis.url"),
        (
            "model.source=image,model.image.reference=r.example.com/m@sha256:" + "0" * 64,
            "no image volumes",
        ),
    ],
)
def test_values_that_cannot_be_right_are_refused_before_anything_is_made(
    tmp_path: Path, values: str, complaint: str
) -> None:
    cluster = restricted(Cluster("1.27"))
    with helm_on(cluster, tmp_path, SPACE) as helm:
        assert complaint in helm.refused("install", "rerank", CHART, "--set", values)
        assert left_over(helm) == set()


def test_a_quota_on_limits_is_met_by_every_container(helm: Helm) -> None:
    """A container without a limit would keep its pod from being made."""
    hard = {"limits.cpu": "40", "limits.memory": "64Gi", "requests.cpu": "4", "pods": "9"}
    hard |= {"requests.ephemeral-storage": "24Gi"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
    helm.cluster.create(QUOTA, SPACE, quota | {"spec": {"hard": hard}})
    hub = f"model.source=hub,model.hub.id=a/b,model.hub.revision={'b' * 40}"
    helm("install", "rerank", CHART, "--set", hub, *WAIT)
    assert_sound(helm)
    unlimited = ("--set", f"{hub},redis.cpuLimit=,test.resources.limits.cpu=null")
    assert "timed out" in helm.refused("upgrade", "rerank", CHART, *unlimited, *IN_VAIN)
    assert pods(helm, "redis") == []
    assert "failed quota: team: must specify limits.cpu for: ask" in helm.refused("test", "rerank")


def test_what_needs_an_operator_is_refused_where_there_is_none(helm: Helm) -> None:
    asked = "monitoring.scrape=podMonitor"
    assert 'no matches for kind "PodMonitor"' in helm.refused(
        "install", "rerank", CHART, "--set", asked
    )
    assert left_over(helm) == set()


def test_a_gpu_is_waited_for_where_there_is_none(helm: Helm) -> None:
    gpu = "worker.gpu.count=1,worker.settings.RERANK_ENGINE=vllm"
    helm("install", "rerank", CHART, "--set", gpu)
    (pod,) = pods(helm, "worker")
    assert pod["status"]["message"] == "0/1 nodes are available: small: insufficient nvidia.com/gpu"


def test_a_large_cluster_takes_the_production_values(large: Helm) -> None:
    large("install", "rerank", CHART, *PROD, *WAIT)
    assert_sound(large)
    assert {pod["spec"]["nodeName"] for pod in pods(large, "worker")} <= {"gpu-0", "gpu-1"}
    assert replicas(large, "rerank-gateway") == 3
    scaled = large.cluster.get(SCALED_OBJECT, SPACE, "rerank-worker")
    assert replicas(large, "rerank-worker") == scaled["spec"]["minReplicaCount"]
    large("uninstall", "rerank")
    assert left_over(large) == {"Secret rerank-secrets"}


def test_an_upgrade_leaves_the_autoscalers_number_alone(large: Helm) -> None:
    large("install", "rerank", CHART, *PROD, *WAIT)
    for resource, name in ((DEPLOYMENT, "rerank-gateway"), (DEPLOYMENT, "rerank-worker")):
        large.cluster.patch(resource, SPACE, name, {"spec": {"replicas": 5}}, strategic=True)
    large(
        "upgrade",
        "rerank",
        CHART,
        *PROD,
        "--set",
        "gateway.settings.RERANK_MAX_QUEUE_MS=2000",
        *WAIT,
    )
    assert (replicas(large, "rerank-gateway"), replicas(large, "rerank-worker")) == (5, 5)
    assert large.cluster.get(AUTOSCALER, SPACE, "rerank-gateway")["spec"]["minReplicas"] == 3


def test_autoscaling_that_is_turned_on_later_takes_no_pod_away(large: Helm) -> None:
    """Nor do the upgrades after that. Kubernetes' default would be one pod of each."""
    fixed = "gateway.autoscaling.enabled=false,worker.autoscaling.enabled=false"
    counts = "gateway.replicas=6,worker.replicas=5"
    large("install", "rerank", CHART, *PROD, "--set", f"{fixed},{counts}", *WAIT)
    before = names(pods(large, "gateway")) | names(pods(large, "worker"))
    assert len(before) == 6 + 5

    large("upgrade", "rerank", CHART, *PROD, *WAIT)
    assert names(pods(large, "gateway")) | names(pods(large, "worker")) == before
    large.cluster.patch(
        DEPLOYMENT, SPACE, "rerank-worker", {"spec": {"replicas": 7}}, strategic=True
    )
    other = "worker.settings.RERANK_LOG_LEVEL=debug"
    large("upgrade", "rerank", CHART, *PROD, "--set", other, *WAIT)
    assert (replicas(large, "rerank-gateway"), replicas(large, "rerank-worker")) == (6, 7)
    gone = names(large.cluster.store.gone(POD, SPACE))
    assert not gone & {name for name in before if "gateway" in name}


def test_a_roll_out_needs_no_spare_gpu_unless_it_is_told_that_there_is_one(tmp_path: Path) -> None:
    """Two workers, two GPUs: one more cannot be had, one less can."""
    nodes = (
        node("small", cpu="16", memory="64Gi"),
        node("gpu", cpu="64", memory="512Gi", taints=[GPU_TAINT], nvidia_com__gpu="2"),
    )
    spare = (
        "worker.strategy.rollingUpdate.maxSurge=1,worker.strategy.rollingUpdate.maxUnavailable=0"
    )
    with helm_on(
        restricted(Cluster(operators=True, nodes=nodes)), tmp_path / "helm", SPACE
    ) as helm:
        helm("install", "rerank", CHART, *PROD, *WAIT)
        helm(
            "upgrade",
            "rerank",
            CHART,
            *PROD,
            "--set",
            "worker.settings.RERANK_LOG_LEVEL=warning",
            *WAIT,
        )
        assert_sound(helm)
        newer = ("--set", f"worker.settings.RERANK_LOG_LEVEL=debug,{spare}")
        assert "timed out" in helm.refused("upgrade", "rerank", CHART, *PROD, *newer, *IN_VAIN)
        assert sum(map(is_ready, pods(helm, "worker"))) == 2


def test_a_canary_is_a_second_track_beside_the_first(large: Helm) -> None:
    other = f"canary.enabled=true,canary.share=10,canary.model.registry.digest=sha256:{'6' * 64}"
    large("install", "rerank", CHART, *PROD, *WAIT)
    stable = names(pods(large, "gateway")) | names(pods(large, "worker"))
    large("upgrade", "rerank", CHART, *PROD, "--set", other, *WAIT)
    assert_sound(large)
    assert stable <= names(pods(large, "gateway")) | names(pods(large, "worker"))
    large("upgrade", "rerank", CHART, *PROD, *WAIT)
    assert names(pods(large, "gateway")) | names(pods(large, "worker")) == stable


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")
def test_kubectl_is_told_the_same(large: Helm, tmp_path: Path) -> None:
    """A dry run on the server passes, and leaves nothing."""
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(
        large(
            "template",
            "rerank",
            CHART,
            *PROD,
            "--kube-version",
            "1.31.0",
            "--namespace",
            SPACE,
            "--no-hooks",
        )
    )
    command = [
        "kubectl",
        "apply",
        "--dry-run=server",
        "--validate=false",
        "--namespace",
        SPACE,
        "--filename",
        rendered,
    ]
    applied = subprocess.run(
        command, env=large.environment, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stderr
    assert "deployment.apps/rerank-worker created (server dry run)" in applied.stdout
    assert left_over(large) == set()


def test_two_releases_share_a_namespace(helm: Helm) -> None:
    helm("install", "rerank", CHART, *WAIT)
    helm("install", "second", CHART, "--set", "worker.settings.RERANK_LOG_LEVEL=debug", *WAIT)
    helm("test", "second")
    assert_sound(helm)
    assert {"rerank", "second-rerank"} <= names(helm.cluster.store.list(SERVICE, SPACE))


def test_nobody_talks_to_whom_he_need_not(helm: Helm) -> None:
    """Not the internet either; with image URLs gateways may, and nothing that is not the
    internet."""
    helm("install", "rerank", CHART, *WAIT)
    gateway, worker, redis = (peer(pods(helm, part)[0]) for part in ("gateway", "worker", "redis"))
    stranger, world = (
        Peer(namespace=SPACE, labels={"app": "stranger"}),
        Peer(address="198.51.100.7"),
    )
    metadata = Peer(address="169.254.169.254")
    store = helm.cluster.store
    assert may_connect(store, gateway, worker, 8001)
    assert may_connect(store, gateway, redis, 6379)
    assert may_connect(store, stranger, gateway, 8000)
    assert not may_connect(store, stranger, worker, 8001)
    assert not may_connect(store, stranger, redis, 6379)
    assert not may_connect(store, worker, redis, 6379)
    assert not may_connect(store, gateway, redis, 22)
    for pod in (gateway, worker, redis):
        assert not may_connect(store, pod, world, 443)
        assert not may_connect(store, pod, metadata, 80)
    helm("upgrade", "rerank", CHART, "--set", "gateway.settings.RERANK_IMAGE_URLS=true", *WAIT)
    reachable = {
        address: may_connect(store, gateway, Peer(address=address), 443)
        for address in (
            "93.184.216.34",
            "10.1.2.3",
            "172.20.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "127.0.0.1",
            "100.64.0.1",
        )
    }
    assert reachable == dict.fromkeys(reachable, False) | {"93.184.216.34": True}
    assert not may_connect(store, gateway, Peer(address="93.184.216.34"), 80)


def test_a_download_reaches_what_its_values_imply_and_nothing_else(
    helm: Helm, tmp_path: Path
) -> None:
    """A proxy, a bucket of the cluster, the cloud's identity, and OpenShift's DNS."""
    proxy = [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
        {"name": "AWS_ENDPOINT_URL", "value": "http://minio.storage.svc:9000/"},
        {"name": "HF_ENDPOINT", "value": "http://hub.example.com"},
    ]
    values = {
        "model": {
            "source": "hub",
            "hub": {"id": "a/b", "revision": "b" * 40},
            "download": {"extraEnv": proxy},
        },
        "worker": {"serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "x"}}},
        "networkPolicy": {"eksPodIdentity": True},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    helm("install", "rerank", CHART, "--values", tmp_path / "values.yaml", *WAIT)
    worker, gateway = (peer(pods(helm, part)[0]) for part in ("worker", "gateway"))
    store, world = helm.cluster.store, Peer(address="198.51.100.7")
    reached = [
        port for port in (22, 80, 443, 3128, 5353, 9000) if may_connect(store, worker, world, port)
    ]
    assert reached == [80, 443, 3128, 5353, 9000]
    for address, port in (("169.254.169.252", 988), ("169.254.170.23", 80)):
        assert may_connect(store, worker, Peer(address=address), port)
        assert not may_connect(store, gateway, Peer(address=address), port)
    assert not may_connect(store, worker, world, 988)


@pytest.mark.parametrize("version", ["1.27", "1.37"])
def test_the_oldest_and_the_newest_kubernetes_take_all_there_is(
    tmp_path: Path, version: str
) -> None:
    """Every part that can be turned on at once, on a cluster with all operators."""
    cluster = restricted(Cluster(version, operators=True, nodes=LARGE))
    for name in ("data", "results"):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": spec,
        }
        cluster.create(CLAIM, SPACE, claim)
    values = tmp_path / "all.yaml"
    values.write_text(yaml.safe_dump(ALL_PARTS))
    with helm_on(cluster, tmp_path / "helm", SPACE) as helm:
        helm("install", "rerank", CHART, *PROD, "--values", values, *WAIT)
        assert_sound(helm)
        assert cluster.store.list(JOB, SPACE)[0]["status"]["succeeded"] == 1
        (evaluation,) = cluster.store.list(CRON_JOB, SPACE)
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "evaluation"}}
        cluster.create(JOB, SPACE, job | {"spec": evaluation["spec"]["jobTemplate"]["spec"]})
        assert cluster.get(JOB, SPACE, "evaluation")["status"]["succeeded"] == 1
        cluster.delete(JOB, SPACE, "evaluation")
        assert any("dashboard" in name for name in names(cluster.store.list(CONFIG_MAP, SPACE)))
        helm("uninstall", "rerank")
        assert left_over(helm) == {
            *(
                "Secret rerank-secrets",
                "PersistentVolumeClaim data",
                "PersistentVolumeClaim results",
            )
        }
