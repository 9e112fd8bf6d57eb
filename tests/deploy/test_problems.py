"""Contradictory values are refused with a sentence each, all at once, before anything is
created."""

from __future__ import annotations

import re

import pytest

from tests.deploy.chart import CANARY, GPU, TRAINER, Values, complaint, merged
from tests.deploy.helm import CHART

ELSEWHERE: Values = {"worker": {"enabled": False}, "gateway": {"workers": ["http://gpu-0:8001"]}}
KEDA: Values = {"worker": {"autoscaling": {"enabled": True}}}
TO_ZERO: Values = {"worker": {"autoscaling": {"minReplicas": 0}}}
CASES: dict[str, Values] = {
    "redis.enabled and externalRedis.url": {"externalRedis": {"url": "redis://other:6379/0"}},
    "redis.existingSecret is for the chart's Redis": {
        "redis": {"enabled": False, "existingSecret": "redis"}
    },
    "externalRedis.url holds a password": {
        "redis": {"enabled": False},
        "externalRedis": {"url": "rediss://gmr:secret@other:6379/0"},
    },
    "externalRedis.sentinelSecretKey is an entry of": {
        "externalRedis": {"sentinelSecretKey": "sentinel"}
    },
    "externalRedis.tlsClientCertificate is in": {"externalRedis": {"tlsClientCertificate": True}},
    "gateways need workers": {"worker": {"enabled": False}},
    "gateway.workers names workers elsewhere": {"gateway": {"workers": ["http://gpu-0:8001"]}},
    "the NetworkPolicy lets gateways talk to nobody": ELSEWHERE,
    "gateway.settings.RERANK_OTLP_ENDPOINT: the NetworkPolicy": {
        "gateway": {"settings": {"RERANK_OTLP_ENDPOINT": "http://collector:4318"}}
    },
    "worker.settings.RERANK_OTLP_ENDPOINT: the NetworkPolicy": {
        "worker": {"settings": {"RERANK_OTLP_ENDPOINT": "http://collector:4318"}}
    },
    "model.download.extraEnv: the address in HTTPS_PROXY is not among the values": {
        "model": {
            "download": {
                "extraEnv": [
                    {
                        "name": "HTTPS_PROXY",
                        "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}},
                    }
                ]
            }
        }
    },
    "so set RERANK_METRICS_PUBLIC": {
        "monitoring": {"scrape": "podMonitor"},
        "gateway": {"settings": {"RERANK_METRICS_PUBLIC": False}},
    },
    "ingress.hosts is empty": {"ingress": {"enabled": True}},
    "ingress.path is /search: gateways would not find it": {
        "ingress": {"enabled": True, "hosts": ["a.example.com"], "path": "/search"},
        "gateway": {"settings": {"RERANK_ROOT_PATH": "/other"}},
    },
    "httpRoute.parentRefs is empty": {"httpRoute": {"enabled": True}},
    "there is nobody to share with": {"canary": {"share": 5}},
    "model.source is registry: model.registry.url": {
        "model": {"source": "registry", "registry": {"url": "s3://models"}}
    },
    "model.source is hub: model.hub.id and .revision": {
        "model": {"source": "hub", "hub": {"id": "vec-ai/lychee-rerank-mm"}}
    },
    "model.download.existingClaim and model.download.claim.create": {
        "model": {"download": {"existingClaim": "models", "claim": {"create": True}}}
    },
    "model.pvc.claimName says which claim": {"model": {"source": "pvc"}},
    "model.image.reference says which": {"model": {"source": "image"}},
    "Kubernetes v1.30.0 has no image volumes": {"model": {"source": "image"}},
    "RERANK_DRAIN_SECONDS (75) leaves nothing": {
        "gateway": {"settings": {"RERANK_DRAIN_SECONDS": 75}}
    },
    "gateway.settings: RERANK_GRACE_SECONDS (71) less RERANK_DRAIN_SECONDS (10) leaves 59000 ms": {
        "gateway": {"settings": {"RERANK_GRACE_SECONDS": 71}}
    },
    "worker.settings: RERANK_GRACE_SECONDS (70) less RERANK_DRAIN_SECONDS (9) leaves 59000 ms": {
        "worker": {"settings": {"RERANK_DRAIN_SECONDS": 9}}
    },
    "worker.terminationGracePeriodSeconds is 71: preStopSeconds and RERANK_GRACE_SECONDS take 73": {
        "worker": {"terminationGracePeriodSeconds": 71, "preStopSeconds": 3}
    },
    "worker.pdb.minAvailable is 1 of 1": {"worker": {"pdb": {"minAvailable": 1}}},
    'gateway.pdb.maxUnavailable is "0"': {"gateway": {"pdb": {"maxUnavailable": 0}}},
    "gateway.autoscaling: minReplicas (11) is above maxReplicas (10)": {
        "gateway": {"autoscaling": {"enabled": True, "minReplicas": 11}}
    },
    "gateway.autoscaling looks at CPU": {
        "gateway": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}
    },
    "gateway.resources.limits.memory is 1024 MiB": {
        "gateway": {"settings": {"RERANK_MAX_BODIES_BYTES": 2**30}}
    },
    "gateway.images.diskMiB says how many": {"gateway": {"images": {"existingClaim": "images"}}},
    "gateway.feedback.existingClaim with several gateways needs a Redis": {
        "gateway": {"feedback": {"existingClaim": "feedback"}, "replicas": 2},
        "redis": {"enabled": False},
    },
    "worker.settings.RERANK_ENGINE is vllm: set worker.gpu.count": {
        "worker": {"settings": {"RERANK_ENGINE": "vllm"}}
    },
    "RERANK_ENGINE_PIPELINE_PARALLEL_SIZE need 8": merged(
        GPU,
        {
            "worker": {
                "gpu": {"count": 4},
                "settings": {
                    "RERANK_ENGINE_TENSOR_PARALLEL_SIZE": 4,
                    "RERANK_ENGINE_PIPELINE_PARALLEL_SIZE": 2,
                },
            }
        },
    ),
    "worker.gpu.count is 2 of nvidia.com/mig-3g.40gb: slices": merged(
        GPU, {"worker": {"gpu": {"count": 2, "resource": "nvidia.com/mig-3g.40gb"}}}
    ),
    "the torch engine uses one GPU": {"worker": {"gpu": {"count": 2}}},
    "worker.workersPerGpu is 2 and worker.gpu.count is 4": merged(
        GPU, {"worker": {"workersPerGpu": 2, "gpu": {"count": 4}}}
    ),
    "worker.workersPerGpu is 3: the torch engine": {
        "worker": {"workersPerGpu": 3, "gpu": {"count": 1}}
    },
    "RERANK_ENGINE_GPU_MEMORY_UTILIZATION is 0.96 for 2 workers together": merged(
        GPU,
        {
            "worker": {
                "workersPerGpu": 2,
                "settings": {"RERANK_ENGINE_GPU_MEMORY_UTILIZATION": "0.96"},
            }
        },
    ),
    "an annotation names one port of a pod": merged(
        GPU, {"worker": {"workersPerGpu": 2}, "monitoring": {"scrape": "annotations"}}
    ),
    "RERANK_ADAPTERS and RERANK_ENGINE_* are vLLM's": {
        "worker": {"settings": {"RERANK_ENGINE_MAX_NUM_SEQS": 64}}
    },
    "worker.autoscaling.by is hpa": merged(
        GPU, {"worker": {"autoscaling": {"enabled": True, "by": "hpa"}}}
    ),
    "worker.autoscaling.by is keda": KEDA,
    "an HPA does not start the first worker": {
        "worker": {"autoscaling": {"enabled": True, "by": "hpa", "minReplicas": 0}}
    },
    "gateways are not ready without a worker, so no request": merged(KEDA, TO_ZERO),
    "cooldownSeconds is 599: a worker may take 600 seconds": merged(
        KEDA, TO_ZERO, {"worker": {"autoscaling": {"keda": {"cooldownSeconds": 599}}}}
    ),
    "its workers are this release's": merged(ELSEWHERE, CANARY),
    "so there is nothing to try": {"canary": {"enabled": True}},
    "canary.share is 5: an HTTPRoute or an Ingress": merged(CANARY, {"canary": {"share": 5}}),
    "canary.share and canary.inService": merged(
        CANARY, {"canary": {"share": 5, "inService": True}}
    ),
    "a serviceMonitor would count its gateways twice": merged(
        CANARY, {"canary": {"inService": True}, "monitoring": {"scrape": "serviceMonitor"}}
    ),
    "trainer.config is no training configuration": merged(
        TRAINER, {"trainer": {"config": "model: [unclosed"}}
    ),
    "trainer.claimName says which claim": merged(TRAINER, {"trainer": {"claimName": ""}}),
    "trainer.publish.name says under which name": merged(
        TRAINER, {"trainer": {"publish": {"registry": "s3://models"}}}
    ),
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """Helm's output for each case."""
    return {sentence: complaint(given, kube="1.30.0") for sentence, given in CASES.items()}


def test_each_is_refused_with_its_sentence(said: dict[str, str]) -> None:
    assert [sentence for sentence, complaint in said.items() if sentence not in complaint] == []


def test_every_sentence_of_the_chart_is_tried(said: dict[str, str]) -> None:
    lines = (CHART / "templates/_problems.tpl").read_text().splitlines()
    sentences = [line for line in lines if line.endswith(".") and not line.startswith("{{-")]
    patterns = {re.sub(r"\\\{\\\{.*?\\\}\\\}", ".*", re.escape(sentence)) for sentence in sentences}
    assert len(patterns) > 30
    assert {
        pattern for pattern in patterns if not re.search(pattern, "\n".join(said.values()))
    } == set()


def test_all_of_them_are_said_at_once_and_of_a_canary_too() -> None:
    complained = complaint(
        {
            "redis": {"enabled": True},
            "externalRedis": {"url": "redis://x"},
            "canary": {"enabled": True, "share": 5, "worker": {"gpu": {"count": 2}}},
        }
    )
    for sentence in (
        "redis.enabled and externalRedis.url",
        "canary.worker.gpu.count is 2",
        "canary.share is 5",
    ):
        assert sentence in complained
