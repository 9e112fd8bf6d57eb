"""Deployments, ReplicaSets and StatefulSets: how many Pods of which template there are, step by
step."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from tests.deploy.cluster.catalogue import (
    CLAIM,
    DEPLOYMENT,
    POD,
    REPLICA_SET,
    STATEFUL_SET,
    Resource,
)
from tests.deploy.cluster.pods import is_ready
from tests.deploy.cluster.quota import quota_problem
from tests.deploy.cluster.store import Key, Store

Object = dict[str, Any]
HASH_LABEL = "pod-template-hash"


def advance_deployments(store: Store) -> None:
    for deployment in store.list(DEPLOYMENT):
        current = _current_replica_set(store, deployment)
        owned = [
            found
            for found in store.list(REPLICA_SET, deployment["metadata"]["namespace"])
            if is_owned(found, deployment)
        ]
        old = [found for found in owned if found["metadata"]["name"] != current["metadata"]["name"]]
        if not deployment["spec"].get("paused"):
            _roll(store, deployment, current, old)
        _report(
            store,
            deployment,
            current["metadata"]["name"],
            [found["metadata"]["name"] for found in owned],
        )


def _current_replica_set(store: Store, deployment: Object) -> Object:
    template, name = deployment["spec"]["template"], deployment["metadata"]["name"]
    namespace, digest = deployment["metadata"]["namespace"], digest_of(template)
    found = store.get(REPLICA_SET, namespace, f"{name}-{digest}")
    if found:
        return found
    marked = _labelled(template, {HASH_LABEL: digest})
    selector = deployment["spec"]["selector"]
    spec = {
        "replicas": 0,
        "template": marked,
        "selector": selector | _match(selector, {HASH_LABEL: digest}),
    }
    value = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": spec}
    value["metadata"] = {
        "labels": marked["metadata"]["labels"],
        "ownerReferences": [owner(deployment)],
    }
    return store.put(Key(REPLICA_SET, namespace, f"{name}-{digest}"), value)


def _roll(store: Store, deployment: Object, current: Object, old: list[Object]) -> None:
    """One step of the strategy: old Pods go as far as it allows, new ones come as far as it
    allows."""
    wanted = deployment["spec"]["replicas"]
    surge, unavailable = limits(deployment)
    ready = {
        found["metadata"]["name"]: sum(is_ready(pod) for pod in pods_of(store, found))
        for found in [current, *old]
    }
    spare = sum(ready.values()) - (wanted - unavailable)
    for found in old:
        unready = found["spec"]["replicas"] - ready[found["metadata"]["name"]]
        leaving = min(found["spec"]["replicas"], unready + max(spare, 0))
        spare -= leaving - unready
        _resize(store, found, found["spec"]["replicas"] - leaving)
    standing = sum(found["spec"]["replicas"] for found in old)
    recreating = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate" and standing
    room = 0 if recreating else wanted + surge - standing
    _resize(store, current, max(min(wanted, room), 0) if room < wanted else wanted)


def limits(deployment: Object) -> tuple[int, int]:
    """How many Pods may be too many, and how many too few, while a Deployment rolls."""
    strategy, wanted = deployment["spec"].get("strategy") or {}, deployment["spec"]["replicas"]
    if strategy.get("type") == "Recreate":
        return 0, wanted
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _share(value: int | str, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = of * int(value.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def _resize(store: Store, replica_set: Object, replicas: int) -> None:
    replica_set["spec"]["replicas"] = replicas
    store.put(_key(REPLICA_SET, replica_set), replica_set)


def _report(store: Store, deployment: Object, current: str, owned: list[str]) -> None:
    namespace, wanted = deployment["metadata"]["namespace"], deployment["spec"]["replicas"]
    pods = {name: pods_of(store, store.get(REPLICA_SET, namespace, name) or {}) for name in owned}
    every = [pod for group in pods.values() for pod in group]
    ready = sum(map(is_ready, every))
    done = len(every) == len(pods[current]) == wanted == ready
    conditions = [
        {"type": "Available", "status": str(ready >= wanted - limits(deployment)[1])},
        {
            "type": "Progressing",
            "status": "True",
            "reason": "NewReplicaSetAvailable" if done else "ReplicaSetUpdated",
        },
    ]
    counts = {"replicas": len(every), "updatedReplicas": len(pods[current]), "readyReplicas": ready}
    counts |= {"availableReplicas": ready, "unavailableReplicas": max(wanted - ready, 0)}
    status = counts | {
        "observedGeneration": deployment["metadata"]["generation"],
        "conditions": conditions,
    }
    store.put(_key(DEPLOYMENT, deployment), deployment | {"status": status})


def advance_replica_sets(store: Store) -> None:
    for replica_set in store.list(REPLICA_SET):
        pods, wanted = pods_of(store, replica_set), replica_set["spec"]["replicas"]
        for pod in sorted(pods, key=is_ready)[: max(len(pods) - wanted, 0)]:
            store.remove(_key(POD, pod))
        for _ in range(wanted - len(pods)):
            _make_pod(store, replica_set, f"{replica_set['metadata']['name']}-{store.version}")
        pods = pods_of(store, replica_set)
        ready = sum(map(is_ready, pods))
        status = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        status["observedGeneration"] = replica_set["metadata"]["generation"]
        store.put(_key(REPLICA_SET, replica_set), replica_set | {"status": status})


def advance_stateful_sets(store: Store) -> None:
    """Pods by their number, replaced all at once where their template has changed, and their
    claims, which stay."""
    for stateful_set in store.list(STATEFUL_SET):
        spec, name = stateful_set["spec"], stateful_set["metadata"]["name"]
        revision = f"{name}-{digest_of(spec['template'])}"
        for pod in pods_of(store, stateful_set):
            number = int(pod["metadata"]["name"].rpartition("-")[2])
            if (
                pod["metadata"]["labels"]["controller-revision-hash"] != revision
                or number >= spec["replicas"]
            ):
                store.remove(_key(POD, pod))
        for number in range(spec["replicas"]):
            _make_stateful_pod(store, stateful_set, number, revision)
        pods = pods_of(store, stateful_set)
        ready = sum(map(is_ready, pods))
        counts = {
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "updatedReplicas": len(pods),
        }
        counts |= {
            "currentReplicas": len(pods),
            "observedGeneration": stateful_set["metadata"]["generation"],
        }
        status = counts | {"currentRevision": revision, "updateRevision": revision}
        store.put(_key(STATEFUL_SET, stateful_set), stateful_set | {"status": status})


def _make_stateful_pod(store: Store, stateful_set: Object, number: int, revision: str) -> None:
    name, namespace = (
        f"{stateful_set['metadata']['name']}-{number}",
        stateful_set["metadata"]["namespace"],
    )
    if store.get(POD, namespace, name):
        return
    claims = stateful_set["spec"].get("volumeClaimTemplates") or []
    volumes = []
    for claim in claims:
        held = f"{claim['metadata']['name']}-{name}"
        volumes.append(
            {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": held}}
        )
        if store.get(CLAIM, namespace, held) is None:
            value = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "spec": claim["spec"],
                "metadata": {},
            }
            store.put(Key(CLAIM, namespace, held), value)
    template = _labelled(stateful_set["spec"]["template"], {"controller-revision-hash": revision})
    template["spec"] = template["spec"] | {
        "volumes": [*(template["spec"].get("volumes") or []), *volumes]
    }
    _make_pod(store, stateful_set, name, template)


def _make_pod(store: Store, of: Object, name: str, template: Object | None = None) -> None:
    """Make a Pod, unless a quota is against it: then there is none, and no word of it but this."""
    template = template or of["spec"]["template"]
    if quota_problem(store, of["metadata"]["namespace"], template["spec"]):
        return
    metadata = (template.get("metadata") or {}) | {"ownerReferences": [owner(of)]}
    value = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    store.put(Key(POD, of["metadata"]["namespace"], name), value)


def pods_of(store: Store, of: Object) -> list[Object]:
    return [pod for pod in store.list(POD, of["metadata"]["namespace"]) if is_owned(pod, of)]


def owner(value: Object) -> Object:
    reference = {"apiVersion": value["apiVersion"], "kind": value["kind"], "controller": True}
    return reference | {"name": value["metadata"]["name"], "uid": value["metadata"]["uid"]}


def is_owned(value: Object, by: Object) -> bool:
    return any(
        found["uid"] == by["metadata"]["uid"]
        for found in value["metadata"].get("ownerReferences") or []
    )


def digest_of(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _labelled(template: Object, labels: dict[str, str]) -> Object:
    metadata = template.get("metadata") or {}
    return template | {"metadata": metadata | {"labels": (metadata.get("labels") or {}) | labels}}


def _match(selector: Object, labels: dict[str, str]) -> Object:
    return {"matchLabels": (selector.get("matchLabels") or {}) | labels}


def _key(resource: Resource, value: Object) -> Key:
    return Key(resource, value["metadata"]["namespace"], value["metadata"]["name"])
