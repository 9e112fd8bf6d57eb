"""The simulated cluster of the chart's tests: what it must refuse, and what its audit must find."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.cluster.api import RESTRICTED, Cluster
from tests.deploy.cluster.api_server import APPLY, MERGE, STRATEGIC, serving
from tests.deploy.cluster.audit import audit
from tests.deploy.cluster.catalogue import (
    AUTOSCALER,
    BUDGET,
    BUILT_IN,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    INGRESS,
    JOB,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    REPLICA_SET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Resource,
)
from tests.deploy.cluster.patching import merge, merge_strategically
from tests.deploy.cluster.pods import is_ready
from tests.deploy.cluster.refusals import Refused
from tests.deploy.cluster.scheduling import node
from tests.deploy.cluster.schemas import schema_of
from tests.deploy.cluster.selectors import query_selects, selects

Object = dict[str, Any]
VERSION = "1.31"


def an(resource: Resource, name: str, **fields: Any) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
    } | fields


def web(**pod: Any) -> Object:
    """A Deployment of one container that declares port 8000 as http; `pod` replaces fields of its
    Pods' spec."""
    container = {
        "name": "web",
        "image": "web:1",
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]} | pod}
    return an(
        DEPLOYMENT, "web", spec={"selector": {"matchLabels": {"app": "web"}}, "template": template}
    )


def with_container(**fields: Any) -> Object:
    """The same; `fields` replace those of its container."""
    value = web()
    value["spec"]["template"]["spec"]["containers"][0] |= fields
    return value


def service(selector: dict[str, str], **port: Any) -> Object:
    return an(SERVICE, "web", spec={"selector": selector, "ports": [{"port": 80} | port]})


def make(cluster: Cluster, resource: Resource, value: Object) -> Object:
    return cluster.create(resource, "default", value)


MOUNT = [{"name": "keys", "mountPath": "/keys"}]
REFUSED = {
    "a misspelled key": (
        DEPLOYMENT,
        web(terminationGracePeriodSecond=5),
        "terminationGracePeriodSecond",
    ),
    "a mount without a volume": (
        DEPLOYMENT,
        with_container(volumeMounts=MOUNT),
        "no volume is called 'keys'",
    ),
    "a mount twice": (
        DEPLOYMENT,
        web(
            containers=[{"name": "a", "image": "a", "volumeMounts": MOUNT * 2}],
            volumes=[{"name": "keys", "emptyDir": {}}],
        ),
        "mountPath: '/keys' twice",
    ),
    "no image": (DEPLOYMENT, with_container(image=""), "image: required"),
    "more asked for than allowed": (
        DEPLOYMENT,
        with_container(resources={"requests": {"memory": "1Gi"}, "limits": {"memory": "900Mi"}}),
        "requests.memory: must be at most the limit",
    ),
    "half a GPU more allowed than asked for": (
        DEPLOYMENT,
        with_container(
            resources={"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}
        ),
        "must be requested as it is limited",
    ),
    "a pause longer than the grace": (
        DEPLOYMENT,
        with_container(lifecycle={"preStop": {"sleep": {"seconds": 31}}}),
        "must be within the grace period",
    ),
    "a port's name of 16 letters": (
        DEPLOYMENT,
        with_container(ports=[{"name": "metrics-and-more", "containerPort": 1}]),
        "is no port's name",
    ),
    "a Deployment whose Pods end": (DEPLOYMENT, web(restartPolicy="Never"), "restartPolicy"),
    "a Job whose Pods never end": (
        JOB,
        an(JOB, "job", spec={"template": web()["spec"]["template"]}),
        "restartPolicy",
    ),
    "a budget of two kinds": (
        BUDGET,
        an(BUDGET, "web", spec={"minAvailable": 1, "maxUnavailable": 1}),
        "mutually exclusive",
    ),
    "an autoscaler upside down": (
        AUTOSCALER,
        an(
            AUTOSCALER,
            "web",
            spec={
                "minReplicas": 3,
                "maxReplicas": 2,
                "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            },
        ),
        "minReplicas",
    ),
    "a label that is none": (
        CONFIG_MAP,
        an(CONFIG_MAP, "a") | {"metadata": {"name": "a", "labels": {"a": "b c"}}},
        "is no label",
    ),
    "too much data": (
        CONFIG_MAP,
        an(CONFIG_MAP, "a", data={"a": "x" * (1 << 20), "b": "x"}),
        "more than 1048576",
    ),
    "a secret that is not base64": (SECRET, an(SECRET, "a", data={"a": "?"}), "not base64"),
    "a name in capitals": (CONFIG_MAP, an(CONFIG_MAP, "Web"), "is no name"),
    "a Service whose name begins with a digit": (
        SERVICE,
        service({}) | {"metadata": {"name": "0"}},
        "is no name",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(case: str) -> None:
    resource, value, why = REFUSED[case]
    cluster = Cluster(VERSION)
    before = cluster.store.version
    with pytest.raises(Refused, match="is invalid") as refused:
        make(cluster, resource, value)
    assert why in str(refused.value)
    assert refused.value.status == 422
    assert cluster.store.version == before


def test_a_selector_must_match_its_own_template() -> None:
    value = web()
    value["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(Refused, match="does not match the template's labels"):
        make(Cluster(), DEPLOYMENT, value)


def test_a_field_that_came_later_is_unknown_to_an_older_version() -> None:
    value = web(
        volumes=[{"name": "model", "image": {"reference": "registry.example.com/model@sha256:0"}}]
    )
    make(Cluster("1.31"), DEPLOYMENT, value)
    with pytest.raises(Refused, match="image"):
        make(Cluster("1.27"), DEPLOYMENT, value)


def test_some_fields_never_change() -> None:
    cluster = Cluster()
    make(cluster, DEPLOYMENT, web())
    other = web()
    other["spec"]["selector"]["matchLabels"] = other["spec"]["template"]["metadata"]["labels"] = {
        "app": "other"
    }
    with pytest.raises(Refused, match=r"spec\.selector: field is immutable"):
        cluster.replace(DEPLOYMENT, "default", "web", other)
    make(cluster, SECRET, an(SECRET, "keys", immutable=True, stringData={"a": "1"}))
    with pytest.raises(Refused, match="immutable"):
        cluster.patch(SECRET, "default", "keys", {"stringData": {"a": "2"}}, strategic=True)


def test_a_restricted_namespace_takes_restricted_pods_alone() -> None:
    cluster = Cluster()
    labels = {RESTRICTED: "restricted"}
    cluster.create(
        NAMESPACE, "", an(NAMESPACE, "tight") | {"metadata": {"name": "tight", "labels": labels}}
    )
    with pytest.raises(
        Refused,
        match=(
            r"allowPrivilegeEscalation != false.*unrestricted"
            r" capabilities.*runAsNonRoot.*seccompProfile"
        ),
    ):
        cluster.create(DEPLOYMENT, "tight", web())
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    value = with_container(securityContext=own)
    value["spec"]["template"]["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    cluster.create(DEPLOYMENT, "tight", value)
    value["spec"]["template"]["spec"]["volumes"] = [{"name": "host", "hostPath": {"path": "/"}}]
    with pytest.raises(Refused, match="volume 'host' is a hostPath"):
        cluster.replace(DEPLOYMENT, "tight", "web", value)


def test_what_is_there_is_not_made_again_and_what_is_not_is_not_found() -> None:
    cluster = Cluster()
    make(cluster, CONFIG_MAP, an(CONFIG_MAP, "a"))
    with pytest.raises(Refused, match="already exists"):
        make(cluster, CONFIG_MAP, an(CONFIG_MAP, "a"))
    with pytest.raises(Refused, match='namespaces "nowhere" not found'):
        cluster.create(CONFIG_MAP, "nowhere", an(CONFIG_MAP, "a"))
    with pytest.raises(Refused, match="Operation cannot be fulfilled"):
        cluster.replace(
            CONFIG_MAP,
            "default",
            "a",
            an(CONFIG_MAP, "a") | {"metadata": {"name": "a", "resourceVersion": "1"}},
        )


def secret_volume(**secret: Any) -> Object:
    return web(volumes=[{"name": "keys", "secret": {"secretName": "keys"} | secret}])


def from_map(key: str) -> Object:
    variable = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": key}}}
    return with_container(env=[variable])


POLICY = an(
    NETWORK_POLICY,
    "none",
    spec={"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]},
)
CALL = {"name": "URL", "value": "http://web:80/rerank"}
NOTICED = {
    "a missing secret": ([(DEPLOYMENT, secret_volume())], "Secret 'keys' not found"),
    "a missing entry of a secret": (
        [
            (SECRET, an(SECRET, "keys", stringData={"a": "1"})),
            (DEPLOYMENT, secret_volume(items=[{"key": "b", "path": "b"}])),
        ],
        "Secret 'keys' has no key b",
    ),
    "a missing entry of a config map": (
        [(CONFIG_MAP, an(CONFIG_MAP, "settings", data={"a": "1"})), (DEPLOYMENT, from_map("b"))],
        "ConfigMap 'settings' has no key b",
    ),
    "a missing service account": (
        [(DEPLOYMENT, web(serviceAccountName="web"))],
        "ServiceAccount 'web' not found",
    ),
    "a missing claim": (
        [(DEPLOYMENT, web(volumes=[{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}]))],
        "PersistentVolumeClaim 'a' not found",
    ),
    "a claim of an unknown class": (
        [
            (
                CLAIM,
                an(
                    CLAIM,
                    "a",
                    spec={
                        "storageClassName": "fast",
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "1Gi"}},
                    },
                ),
            ),
            (DEPLOYMENT, web(volumes=[{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}])),
        ],
        "PersistentVolumeClaim 'a' is not bound",
    ),
    "a Service that selects nothing": (
        [(DEPLOYMENT, web()), (SERVICE, service({"app": "wbe"}))],
        "Service web: selects no Pod",
    ),
    "a Service's port that leads nowhere": (
        [(DEPLOYMENT, web()), (SERVICE, service({"app": "web"}, targetPort="grpc"))],
        "port 80 leads to grpc, which Pod",
    ),
    "a probe of an undeclared port": (
        [(DEPLOYMENT, with_container(readinessProbe={"httpGet": {"path": "/", "port": "admin"}}))],
        "web.readinessProbe asks port admin, which it does not declare",
    ),
    "an Ingress to nobody": (
        [
            (
                INGRESS,
                an(
                    INGRESS,
                    "web",
                    spec={
                        "tls": [{"secretName": "certificate"}],
                        "rules": [
                            {
                                "http": {
                                    "paths": [
                                        {
                                            "path": "/",
                                            "pathType": "Prefix",
                                            "backend": {
                                                "service": {"name": "web", "port": {"number": 80}}
                                            },
                                        }
                                    ]
                                }
                            }
                        ],
                    },
                ),
            )
        ],
        "Ingress web: Service 'web' not found",
    ),
    "an autoscaler of nothing": (
        [
            (
                AUTOSCALER,
                an(
                    AUTOSCALER,
                    "web",
                    spec={
                        "maxReplicas": 2,
                        "scaleTargetRef": {"kind": "Deployment", "name": "web"},
                    },
                ),
            )
        ],
        "Deployment 'web' not found",
    ),
    "a budget for nobody": (
        [
            (
                BUDGET,
                an(
                    BUDGET,
                    "web",
                    spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
                ),
            )
        ],
        "PodDisruptionBudget web: selects no Pod",
    ),
    "a budget that stops every drain": (
        [
            (DEPLOYMENT, web()),
            (
                BUDGET,
                an(
                    BUDGET,
                    "web",
                    spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
                ),
            ),
        ],
        "so no node can be drained",
    ),
    "a policy for nobody": ([(NETWORK_POLICY, POLICY)], "NetworkPolicy none: selects no Pod"),
    "an address that is no Service": (
        [(DEPLOYMENT, with_container(env=[CALL]))],
        "web.URL names web:80, and there is no such Service",
    ),
    "a call of a port that the Service has not": (
        [
            (SERVICE, service({"app": "web"}, port=81, targetPort="http")),
            (DEPLOYMENT, with_container(args=["--url", CALL["value"]])),
        ],
        "and the Service has no such port",
    ),
    "a call that no policy lets through": (
        [
            (SERVICE, service({"app": "web"}, targetPort="http")),
            (DEPLOYMENT, with_container(env=[CALL])),
            (NETWORK_POLICY, POLICY),
        ],
        "and no policy lets it reach Pod",
    ),
    "no room": (
        [(DEPLOYMENT, with_container(resources={"requests": {"cpu": "5"}}))],
        "0/1 nodes are available: small: insufficient cpu",
    ),
    "a selector that another Node's label would satisfy": (
        [(DEPLOYMENT, web(nodeSelector={"gpu": "yes"}))],
        "didn't match the Pod's node selector",
    ),
}


@pytest.mark.parametrize("case", NOTICED)
def test_it_notices(case: str) -> None:
    values, finding = NOTICED[case]
    cluster = Cluster(VERSION)
    for resource, value in values:
        make(cluster, resource, value)
    assert [found for found in audit(cluster.store) if finding in found]


def test_it_notices_nothing_where_nothing_is_wrong() -> None:
    cluster = Cluster()
    make(cluster, SECRET, an(SECRET, "keys", stringData={"a": "1"}))
    make(cluster, DEPLOYMENT, secret_volume(items=[{"key": "a", "path": "a"}]))
    make(cluster, SERVICE, service({"app": "web"}, targetPort="http"))
    assert audit(cluster.store) == []


def test_a_pod_starts_when_what_it_waited_for_comes() -> None:
    cluster = Cluster()
    make(cluster, DEPLOYMENT, secret_volume())
    assert cluster.get(DEPLOYMENT, "default", "web")["status"]["readyReplicas"] == 0
    make(cluster, SECRET, an(SECRET, "keys"))
    assert cluster.get(DEPLOYMENT, "default", "web")["status"]["readyReplicas"] == 1


def standing(cluster: Cluster) -> list[tuple[str, bool]]:
    return sorted(
        (pod["spec"]["containers"][0]["image"], is_ready(pod))
        for pod in cluster.list(POD, "default")
    )


@pytest.mark.parametrize(
    ("strategy", "while_it_hangs"),
    [
        ({"type": "Recreate"}, [("web:2", False)] * 2),
        (
            {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            [("web:1", True), ("web:1", True), ("web:2", False)],
        ),
        (
            {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            [("web:1", True), ("web:2", False)],
        ),
    ],
)
def test_a_roll_out_goes_as_far_as_its_strategy_lets_it(
    strategy: Object, while_it_hangs: list[tuple[str, bool]]
) -> None:
    cluster = Cluster()
    value = web()
    value["spec"] |= {"replicas": 2, "strategy": strategy}
    make(cluster, DEPLOYMENT, value)
    cluster.missing_images.add("web:2")
    value = copy.deepcopy(value)
    value["spec"]["template"]["spec"]["containers"][0]["image"] = "web:2"
    cluster.replace(DEPLOYMENT, "default", "web", value)
    assert standing(cluster) == while_it_hangs
    cluster.missing_images.clear()
    cluster.settle()
    assert standing(cluster) == [("web:2", True)] * 2


def test_a_stateful_set_keeps_its_claims() -> None:
    cluster = Cluster()
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    spec = web()["spec"] | {"serviceName": "web", "replicas": 2, "volumeClaimTemplates": [claim]}
    make(cluster, STATEFUL_SET, an(STATEFUL_SET, "web", spec=spec))
    assert [pod["metadata"]["name"] for pod in cluster.list(POD, "default")] == ["web-0", "web-1"]
    assert audit(cluster.store) == []
    cluster.delete(STATEFUL_SET, "default", "web")
    assert cluster.list(POD, "default") == []
    assert [kept["metadata"]["name"] for kept in cluster.list(CLAIM, "default")] == [
        "data-web-0",
        "data-web-1",
    ]


def test_what_an_owner_made_goes_with_it() -> None:
    cluster = Cluster()
    make(cluster, DEPLOYMENT, web())
    cluster.delete(DEPLOYMENT, "default", "web")
    assert (cluster.list(POD, "default"), cluster.list(REPLICA_SET, "default")) == ([], [])


def test_tainted_nodes_take_whom_they_are_told_to() -> None:
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    cluster = Cluster(
        nodes=[node("gpu", cpu="8", memory="8Gi", taints=[taint], nvidia_com__gpu="1")]
    )
    asked = {"limits": {"nvidia.com/gpu": 1}}
    make(cluster, DEPLOYMENT, with_container(resources=asked))
    assert "untolerated taint nvidia.com/gpu" in audit(cluster.store)[0]
    value = with_container(resources=asked)
    value["spec"]["template"]["spec"]["tolerations"] = [
        {"key": "nvidia.com/gpu", "operator": "Exists"}
    ]
    cluster.replace(DEPLOYMENT, "default", "web", value)
    assert audit(cluster.store) == []
    cluster.patch(DEPLOYMENT, "default", "web", {"spec": {"replicas": 2}}, strategic=False)
    assert "insufficient nvidia.com/gpu" in audit(cluster.store)[0]


def test_lists_are_merged_by_the_key_that_their_schema_names() -> None:
    """What helm sends when a variable changes, one goes, and a container stays as it was."""
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]
    live = with_container(env=env)
    live["spec"]["template"]["spec"]["containers"].append({"name": "injected", "image": "mesh:1"})
    change = [{"name": "B", "value": "5"}, {"name": "A", "$patch": "delete"}]
    container = {
        "name": "web",
        "env": change,
        "$setElementOrder/env": [{"name": "C"}, {"name": "B"}],
    }
    patch = {
        "spec": {
            "template": {
                "spec": {
                    "containers": [container],
                    "$setElementOrder/containers": [{"name": "web"}],
                }
            }
        }
    }
    merged = merge_strategically(live, patch, schema_of("apps/v1", "Deployment", VERSION), VERSION)
    first, second = merged["spec"]["template"]["spec"]["containers"]
    assert first["env"] == [{"name": "C", "value": "3"}, {"name": "B", "value": "5"}]
    assert first["ports"] == [{"name": "http", "containerPort": 8000}]
    assert second["name"] == "injected"


def test_lists_without_a_key_are_replaced() -> None:
    live = {
        "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 1}]}], "policyTypes": ["Egress"]}
    }
    patch = {"spec": {"egress": [{"ports": [{"port": 2}]}]}}
    merged = merge_strategically(
        live, patch, schema_of("networking.k8s.io/v1", "NetworkPolicy", VERSION), VERSION
    )
    assert merged["spec"]["egress"] == [{"ports": [{"port": 2}]}]
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": None, "c": [3]}}) == {"a": {"c": [3]}}


def test_a_volume_that_becomes_another_kind_keeps_nothing_of_the_first() -> None:
    live = web(volumes=[{"name": "model", "emptyDir": {"sizeLimit": "1Gi"}}])
    volume = {
        "name": "model",
        "persistentVolumeClaim": {"claimName": "a"},
        "$retainKeys": ["name", "persistentVolumeClaim"],
    }
    patch = {"spec": {"template": {"spec": {"volumes": [volume]}}}}
    merged = merge_strategically(live, patch, schema_of("apps/v1", "Deployment", VERSION), VERSION)
    assert merged["spec"]["template"]["spec"]["volumes"] == [
        {"name": "model", "persistentVolumeClaim": {"claimName": "a"}}
    ]


def test_selectors_in_both_spellings() -> None:
    labels = {"app": "web", "track": "stable"}
    assert query_selects("app=web,track!=canary,track in (stable, canary),!old", labels)
    assert not query_selects("app=web,track notin (stable)", labels)
    assert selects(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}],
        },
        labels,
    )
    assert selects({}, labels)
    assert not selects(None, labels)


def test_over_http_it_is_discovered_patched_and_watched() -> None:
    cluster = Cluster()
    with serving(cluster) as url, httpx.Client(base_url=url, timeout=30) as client:
        listed = (
            client.get("/api/v1").json()["resources"]
            + client.get("/apis/apps/v1").json()["resources"]
        )
        served = {resource.kind for resource in BUILT_IN if resource.group in {"", "apps"}}
        assert {resource["kind"] for resource in listed} == served
        path = "/api/v1/namespaces/default/configmaps"
        assert client.post(path, json=an(CONFIG_MAP, "a", data={"a": "1"})).status_code == 201
        assert client.post(f"{path}?dryRun=All", json=an(CONFIG_MAP, "b")).status_code == 201
        for kind in (MERGE, STRATEGIC):
            patched = client.patch(
                f"{path}/a",
                content=json.dumps({"data": {"b": kind}}),
                headers={"Content-Type": kind},
            )
            assert patched.json()["data"] == {"a": "1", "b": kind}
        applied = yaml.safe_dump(an(CONFIG_MAP, "c", data={"a": "1"}))
        assert (
            client.patch(f"{path}/c", content=applied, headers={"Content-Type": APPLY}).status_code
            == 200
        )
        assert [item["metadata"]["name"] for item in client.get(path).json()["items"]] == ["a", "c"]
        with client.stream("GET", f"{path}?watch=true&fieldSelector=metadata.name=a") as watch:
            lines = watch.iter_lines()
            assert json.loads(next(lines))["type"] == "ADDED"
            assert client.delete(f"{path}/a").status_code == 200
            assert json.loads(next(lines))["type"] == "DELETED"
        assert client.get(f"{path}/a").json()["reason"] == "NotFound"
        assert client.get("/apis/nothing.example.com/v1/things").status_code == 404
        assert (
            client.post(
                path,
                content=b"k8s\0",
                headers={"Content-Type": "application/vnd.kubernetes.protobuf"},
            ).status_code
            == 415
        )
