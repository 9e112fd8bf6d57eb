"""Values that enable each feature of the chart, or disable it if it is on by default."""

from __future__ import annotations

from tests.deploy.chart import CANARY, DIGEST, GPU, HUB, PROD, TRAINER, Values, merged

FILES: dict[str, tuple[Values, tuple[str, ...]]] = {
    "values.yaml": ({}, ()),
    "values-prod.yaml": (PROD, ("values-prod.yaml",)),
    "values-spot.yaml": (PROD, ("values-prod.yaml", "values-spot.yaml")),
    "values-openshift.yaml": ({}, ("values-openshift.yaml",)),
}
PEER = [{"podSelector": {"matchLabels": {"app": "shop"}}}]
FEATURES: dict[str, Values] = {
    "no auth, no policies, no test": {
        "auth": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "test": {"enabled": False},
    },
    "own secrets": {
        "auth": {"existingSecret": "keys"},
        "cacheSecret": {"existingSecret": "cache"},
        "test": {"existingSecret": "key"},
    },
    "a given password": {"redis": {"existingSecret": "redis"}},
    "no redis": {"redis": {"enabled": False}},
    "redis elsewhere": {
        "redis": {"enabled": False},
        "externalRedis": {
            "url": "rediss://gmr@redis:6379/0",
            "existingSecret": "redis",
            "tlsSecret": "tls",
        },
        "networkPolicy": {"externalRedis": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
    },
    "workers elsewhere": {
        "worker": {"enabled": False},
        "gateway": {"workers": ["http://gpu-0:8001", "http://gpu-1:8001"]},
        "networkPolicy": {"gatewayEgress": [{"ports": [{"port": 8001}]}]},
    },
    "cascades": {"gateway": {"cascades": ["fast", "small-first"]}},
    "gpu": merged(
        GPU,
        {
            "worker": {
                "gpu": {"count": 4, "resource": "nvidia.com/gpu"},
                "runtimeClassName": "nvidia",
            }
        },
    ),
    "workers that share a GPU": merged(
        GPU,
        CANARY,
        {
            "worker": {"workersPerGpu": 2},
            "canary": {"worker": {"workersPerGpu": 3}},
            "monitoring": {"scrape": "podMonitor"},
        },
    ),
    "registry": {
        "model": {
            "source": "registry",
            "registry": {"url": "s3://models", "name": "my-gmr", "digest": DIGEST},
        }
    },
    "hub with checksums": merged(
        HUB, {"model": {"hub": {"sha256": {"model.safetensors": "c" * 64}}}}
    ),
    "a claim for downloads": merged(
        HUB,
        {
            "model": {
                "download": {
                    "size": "77Gi",
                    "claim": {"create": True, "storageClassName": "fast"},
                }
            }
        },
    ),
    "claim": {"model": {"source": "pvc", "pvc": {"claimName": "models", "path": "gmr-7b"}}},
    "hpa": {
        "gateway": {"autoscaling": {"enabled": True}},
        "worker": {"autoscaling": {"enabled": True, "by": "hpa"}},
    },
    "scale to zero": {
        "worker": {"autoscaling": {"enabled": True, "minReplicas": 0}},
        "gateway": {"settings": {"RERANK_WAIT_FOR_WORKER_SECONDS": 300}},
        "monitoring": {"scrape": "podMonitor"},
    },
    "keda": {"worker": {"autoscaling": {"enabled": True}}, "monitoring": {"scrape": "annotations"}},
    "pause before SIGTERM": {"gateway": {"preStopSeconds": 10}, "worker": {"preStopSeconds": 3}},
    "canary by ingress": merged(
        CANARY,
        {
            "canary": {"share": 5},
            "ingress": {"enabled": True, "hosts": ["rerank.example.com"], "tlsSecret": "tls"},
        },
    ),
    "canary by route": merged(
        CANARY,
        {
            "canary": {"share": 20},
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        },
    ),
    "canary in the service": merged(CANARY, {"canary": {"inService": True}}),
    "image urls": {
        "gateway": {"settings": {"RERANK_IMAGE_URLS": True}},
        "networkPolicy": {"clients": PEER},
    },
    "images on disk": {"gateway": {"images": {"diskMiB": 4096}}},
    "images on a claim": {
        "gateway": {"images": {"diskMiB": 8192, "existingClaim": "images"}, "replicas": 3}
    },
    "feedback on a claim": {
        "gateway": {
            "feedback": {"existingClaim": "feedback", "diskMiB": 2048},
            "settings": {"RERANK_FEEDBACK_CONTENT": True, "RERANK_FEEDBACK_TENANTS": "acme"},
        }
    },
    "monitoring": {
        "monitoring": {
            "scrape": "serviceMonitor",
            "rules": {"enabled": True},
            "dashboards": {"enabled": True},
        },
    },
    "training": merged(
        TRAINER,
        {
            "trainer": {
                "gpu": {"count": 8},
                "publish": {"registry": "s3://models", "name": "my-gmr"},
                "jobLabels": {"kueue.x-k8s.io/queue-name": "training"},
                "podLabels": {"team": "search"},
                "podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
                "schedulerName": "volcano",
            }
        },
    ),
    "training on a CPU": TRAINER,
    "evaluation": merged(
        HUB,
        {
            "model": {"hub": {"sha256": {"a.json": "c" * 64}}},
            "evaluation": {"enabled": True, "claimName": "results"},
        },
    ),
    "extras": {
        "labels": {"team": "search"},
        "imagePullSecrets": [{"name": "regcred"}],
        "service": {
            "type": "LoadBalancer",
            "loadBalancerClass": "example.com/internal",
            "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv6", "IPv4"],
            "ipFamilyPolicy": "PreferDualStack",
        },
        "redis": {"podLabels": {"a": "b"}, "schedulerName": "volcano"},
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-extra"},
            }
        ],
        **{
            part: {
                "podLabels": {"a": "b"},
                "podAnnotations": {"c": "d"},
                "priorityClassName": "high",
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"operator": "Exists"}],
                "affinity": {"nodeAffinity": {}},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
                ],
                "extraArgs": ["--port=9"],
                "extraEnv": [{"name": "TZ", "value": "UTC"}],
                "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
                "extraVolumes": [{"name": "more", "emptyDir": {}}],
                "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
                "initContainers": [{"name": "before", "image": "before"}],
                "sidecars": [{"name": "beside", "image": "beside"}],
                "serviceAccount": {"create": False, "name": "mine"},
                "schedulerName": "volcano",
                "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
                "probes": {"liveness": {"periodSeconds": 33}},
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
            }
            for part in ("gateway", "worker")
        },
    },
}
IMAGE_VOLUME: Values = {
    "model": {"source": "image", "image": {"reference": f"registry.example.com/gmr@{DIGEST}"}}
}
