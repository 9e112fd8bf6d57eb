"""Gateways, workers, their checkpoint and their canary, as the chart renders them."""

from __future__ import annotations

import re
import subprocess

import pytest
from prometheus_client import REGISTRY

import service.observability.metrics  # noqa: F401  # what the service exports
from tests.deploy.chart import (
    CANARY,
    DIGEST,
    GPU,
    Values,
    container,
    environment,
    expect_valid,
    merged,
    objects,
    one,
    pods,
)
from tests.deploy.features import FEATURES, FILES, IMAGE_VOLUME
from tests.deploy.helm import ROOT


def test_a_pod_has_time_for_its_grace() -> None:
    given: Values = {
        "gateway": {
            "preStopSeconds": 7,
            "settings": {"RERANK_GRACE_SECONDS": 30.5, "RERANK_DEFAULT_TIMEOUT_MS": 18_500},
        },
        "worker": {"terminationGracePeriodSeconds": 99},
    }
    made = dict(pods(objects(given)))
    assert made["Deployment rerank-gateway"]["terminationGracePeriodSeconds"] == 7 + 31 + 5
    assert made["Deployment rerank-worker"]["terminationGracePeriodSeconds"] == 99


def test_a_worker_on_a_spot_node_ends_in_time_and_a_gateway_has_the_usual() -> None:
    given, files = FILES["values-spot.yaml"]
    made = dict(pods(objects(given, *files)))
    assert made["Deployment rerank-worker"]["terminationGracePeriodSeconds"] == 15
    assert made["Deployment rerank-gateway"]["terminationGracePeriodSeconds"] == 85


def test_no_pod_names_a_user_where_the_cluster_assigns_one() -> None:
    everything = merged(FEATURES["training"], FEATURES["evaluation"], CANARY)
    made = dict(pods(objects(everything, "values-openshift.yaml")))
    assert {name.split()[0] for name in made} == {"Deployment", "Job", "CronJob", "Pod"}
    for name, pod in made.items():
        rights = pod["securityContext"]
        assert rights["runAsNonRoot"], name
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & rights.keys(), name
        for each in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert not {"runAsUser", "runAsGroup"} & each["securityContext"].keys(), name


@pytest.mark.parametrize(
    ("version", "hook"),
    [("1.29.0", {"exec": {"command": ["sleep", "7"]}}), ("1.30.0", {"sleep": {"seconds": 7}})],
)
def test_a_pause_before_sigterm_is_kubernetes_own_where_it_has_one(
    version: str, hook: object
) -> None:
    found = objects({"gateway": {"preStopSeconds": 7}}, kube=version)
    assert container(found, "rerank-gateway")["lifecycle"] == {"preStop": hook}


def test_a_platforms_fields_reach_every_pod_and_the_service() -> None:
    found = objects(FEATURES["extras"])
    redis = one(found, "Deployment", "rerank-redis")["spec"]["template"]
    assert (redis["spec"]["schedulerName"], redis["metadata"]["labels"]["a"]) == ("volcano", "b")
    for part in ("gateway", "worker"):
        pod = one(found, "Deployment", f"rerank-{part}")["spec"]["template"]["spec"]
        assert (pod["schedulerName"], pod["hostAliases"][0]["ip"]) == ("volcano", "10.0.0.1")
        assert pod["dnsConfig"] == {"options": [{"name": "ndots", "value": "2"}]}
        own = pod["containers"][0]
        assert own["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "1"]}}}
        liveness = own["livenessProbe"]
        assert (liveness["periodSeconds"], liveness["failureThreshold"]) == (33, 6)
        assert own["readinessProbe"]["periodSeconds"] == 2

    service = one(found, "Service", "rerank")["spec"]
    assert (service["loadBalancerClass"], service["externalTrafficPolicy"]) == (
        "example.com/internal",
        "Local",
    )
    assert service["ipFamilies"] == ["IPv6", "IPv4"]
    both = objects(merged(FEATURES["extras"], FEATURES["canary in the service"]))
    canary = one(both, "Service", "rerank-canary")["spec"]
    assert (canary["ipFamilies"], canary["ipFamilyPolicy"]) == (
        ["IPv6", "IPv4"],
        "PreferDualStack",
    )

    (job,) = [each for each in objects(FEATURES["training"]) if each["kind"] == "Job"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    template = job["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "search"
    assert "kueue.x-k8s.io/queue-name" not in template["metadata"]["labels"]
    assert template["metadata"]["annotations"]
    assert template["spec"]["schedulerName"] == "volcano"


def test_probes_ask_three_different_questions_of_a_worker() -> None:
    worker = container(objects({"worker": {"startupSeconds": 901}}), "rerank-worker")
    paths = [
        worker[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")
    ]
    assert paths == ["/info", "/health/ready", "/health/live"]
    startup = worker["startupProbe"]
    assert (
        901
        <= startup["periodSeconds"] * startup["failureThreshold"]
        < 901 + startup["periodSeconds"]
    )


def test_an_autoscaler_is_not_fought_over_replicas() -> None:
    for feature in ("hpa", "keda"):
        found = objects(FEATURES[feature])
        assert "replicas" not in one(found, "Deployment", "rerank-worker")["spec"]
    assert one(objects(), "Deployment", "rerank-worker")["spec"]["replicas"] == 1


def test_workers_are_scaled_by_requests_that_stable_gateways_hold() -> None:
    trigger = one(objects(FEATURES["keda"]), "ScaledObject", "rerank-worker")["spec"]["triggers"][
        0
    ]["metadata"]
    pods = '{namespace="search",pod=~"rerank-gateway-[^-]+-[^-]+"}'
    assert (
        trigger["query"]
        == f"sum(rerank_requests_queued{pods}) + sum(rerank_requests_in_flight{pods})"
    )
    assert trigger["ignoreNullValues"] == "false"
    exported = {metric.name for metric in REGISTRY.collect()}
    assert set(re.findall("rerank_[a-z_]+", trigger["query"])) <= exported


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ({}, "ghcr.io/gmr-rerank/worker-cpu:0.1.0"),
        (GPU, "ghcr.io/gmr-rerank/worker:0.1.0"),
        ({"worker": {"gpu": {"count": 1}}}, "ghcr.io/gmr-rerank/worker:0.1.0"),
        ({"worker": {"image": {"repository": "mine", "tag": "7"}}}, "mine:7"),
        (
            {"worker": {"image": {"repository": "mine", "tag": "7", "digest": DIGEST}}},
            f"mine@{DIGEST}",
        ),
    ],
)
def test_the_worker_runs_the_image_that_fits_its_engine(given: Values, image: str) -> None:
    assert container(objects(given), "rerank-worker")["image"] == image


def test_the_registry_of_every_image_is_one_value_and_that_of_the_makefile() -> None:
    registry = "registry.example.com:5000"
    every = merged(
        {"global": {"imageRegistry": registry, "another": "chart's"}},
        FEATURES["training"],
        FEATURES["evaluation"],
    )
    found = list(objects(every)) + list(objects(merged(every, GPU)))
    images = {
        each["image"]
        for _, pod in pods(found)
        for each in [*pod.get("initContainers", ()), *pod["containers"]]
    }
    redis = f"{registry}/library/redis:7.2-bookworm"
    command = ["make", "--dry-run", "push", f"REGISTRY={registry}"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pushed = re.findall(r"^docker push (\S+)$", said, re.MULTILINE)
    assert images == {*pushed, redis}
    assert sorted(re.findall(r" -t (\S+)", said)) == sorted(pushed)


def test_gpus_are_limits_and_split_the_model() -> None:
    worker = container(objects(FEATURES["gpu"]), "rerank-worker")
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert environment(worker)["RERANK_ENGINE_TENSOR_PARALLEL_SIZE"] == "4"
    strategy = one(objects(FEATURES["gpu"]), "Deployment", "rerank-worker")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_workers_that_share_a_gpu_have_a_port_each_in_both_tracks() -> None:
    found = objects(FEATURES["workers that share a GPU"])
    for track, ports in (("", [8001, 8002]), ("-canary", [8001, 8002, 8003])):
        worker = container(found, f"rerank-worker{track}")
        names = [port["name"] for port in worker["ports"]]
        assert environment(worker)["RERANK_PROCESSES"] == str(len(ports))
        assert [port["containerPort"] for port in worker["ports"]] == ports
        service = one(found, "Service", f"rerank-worker{track}")["spec"]["ports"]
        assert [(port["port"], port["targetPort"]) for port in service] == list(
            zip(ports, names, strict=True)
        )
        told = environment(container(found, f"rerank-gateway{track}"))["RERANK_WORKERS"]
        assert told == ",".join(f"dns://rerank-worker{track}:{port}" for port in ports)

        startup = worker["startupProbe"]
        assert startup["httpGet"]["port"] == names[-1], "the last one is loaded last"
        assert startup["periodSeconds"] * startup["failureThreshold"] == 600 * len(ports)

    watched = one(found, "PodMonitor", "rerank")["spec"]["podMetricsEndpoints"]
    assert [endpoint["port"] for endpoint in watched] == ["http", "http-2", "http-3"]


@pytest.mark.parametrize(
    ("feature", "name", "loads"),
    [
        (
            "registry",
            f"/models/registry/{'a' * 64}",
            ["models", "pull", f"my-gmr@{DIGEST}", "--registry=s3://models", "--cache=/models"],
        ),
        (
            "hub with checksums",
            "vec-ai/lychee-rerank-mm",
            [
                "models",
                "pull",
                "vec-ai/lychee-rerank-mm",
                f"--revision={'b' * 40}",
                "--cache=/models",
            ],
        ),
        ("claim", "/models/gmr-7b", None),
    ],
)
def test_a_checkpoint_is_loaded_before_the_worker_which_then_runs_offline(
    feature: str, name: str, loads: list[str] | None
) -> None:
    found = objects(FEATURES[feature])
    pod = one(found, "Deployment", "rerank-worker")["spec"]["template"]["spec"]
    worker = pod["containers"][0]
    assert environment(worker)["RERANK_MODEL"] == name
    assert environment(worker)["HF_HUB_OFFLINE"] == "1"
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in worker["volumeMounts"]
    assert [
        each["args"] for each in pod.get("initContainers", ()) if each["name"] == "load-model"
    ] == ([loads] if loads else [])


def test_downloads_stay_on_a_claim_of_the_release_that_outlives_it() -> None:
    found = objects(FEATURES["a claim for downloads"])
    claim = one(found, "PersistentVolumeClaim", "rerank-models")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["resources"]["requests"]["storage"] == "77Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    pod = one(found, "Deployment", "rerank-worker")["spec"]["template"]["spec"]
    held = {"name": "model", "persistentVolumeClaim": {"claimName": "rerank-models"}}
    assert held in pod["volumes"]


def test_checksums_are_compared_in_the_folder_that_the_hub_makes() -> None:
    found = objects(FEATURES["hub with checksums"])
    check = one(found, "Deployment", "rerank-worker")["spec"]["template"]["spec"]["initContainers"][
        1
    ]
    assert check["workingDir"] == f"/models/models--vec-ai--lychee-rerank-mm/snapshots/{'b' * 40}"
    assert one(found, "ConfigMap", "rerank-worker-checksums")["data"] == {
        "SHA256SUMS": f"{'c' * 64}  model.safetensors\n"
    }


def test_a_new_digest_is_a_new_pod_and_a_new_version_of_the_chart_alone_is_not() -> None:
    def template(given: Values) -> object:
        return one(objects(given), "Deployment", "rerank-worker")["spec"]["template"]

    other = merged(FEATURES["registry"], {"model": {"registry": {"digest": f"sha256:{'d' * 64}"}}})
    assert template(FEATURES["registry"]) != template(other)
    labels = one(objects(), "Deployment", "rerank-worker")["spec"]["template"]["metadata"]["labels"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


def test_an_image_volume_is_valid_where_kubernetes_has_them() -> None:
    found = objects(IMAGE_VOLUME)
    expect_valid(found, "1.37.0")
    spec = one(found, "Deployment", "rerank-worker")["spec"]["template"]["spec"]
    assert {
        "name": "model",
        "image": {"reference": f"registry.example.com/gmr@{DIGEST}", "pullPolicy": "IfNotPresent"},
    } in spec["volumes"]


def test_a_canary_is_a_second_track_from_gateway_to_checkpoint() -> None:
    found = objects(FEATURES["canary by route"])
    gateway, worker = (
        container(found, "rerank-gateway-canary"),
        container(found, "rerank-worker-canary"),
    )
    assert environment(gateway)["RERANK_WORKERS"] == "dns://rerank-worker-canary:8001"
    assert environment(worker)["RERANK_MODEL"] == "/models/gmr"
    assert environment(container(found, "rerank-worker"))["RERANK_MODEL"] == "gmr-tiny"
    refs = one(found, "HTTPRoute", "rerank")["spec"]["rules"][0]["backendRefs"]
    assert [(each["name"], each["weight"]) for each in refs] == [
        ("rerank", 80),
        ("rerank-canary", 20),
    ]
    assert one(found, "Service", "rerank")["spec"]["selector"]["track"] == "stable"
    assert one(found, "Service", "rerank-canary")["spec"]["selector"]["track"] == "canary"


def test_a_canary_may_have_its_part_of_the_main_service() -> None:
    assert (
        "track"
        not in one(objects(FEATURES["canary in the service"]), "Service", "rerank")["spec"][
            "selector"
        ]
    )


def test_a_canarys_share_of_an_ingress_is_a_weight() -> None:
    annotations = one(objects(FEATURES["canary by ingress"]), "Ingress", "rerank-canary")[
        "metadata"
    ]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/canary-weight"] == "5"
