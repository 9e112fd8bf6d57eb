"""The controllers, each a function that takes its objects one step further. `reconcile` calls them
until nothing changes."""

from __future__ import annotations

from typing import Any

from tests.deploy.cluster import kubelet
from tests.deploy.cluster.catalogue import (
    AUTOSCALER,
    BUILT_IN,
    CLAIM,
    JOB,
    NAMESPACE,
    OPERATORS,
    POD,
    SCALED_OBJECT,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    Resource,
)
from tests.deploy.cluster.rollouts import (
    advance_deployments,
    advance_replica_sets,
    advance_stateful_sets,
    owner,
)
from tests.deploy.cluster.store import Key, Store

Object = dict[str, Any]
MAX_ROUNDS = 200


def reconcile(store: Store, missing_images: set[str], runtime: kubelet.Runtime) -> None:
    """Until nothing changes any more: no time passes here, so what is not ready then will never
    be."""
    for _ in range(MAX_ROUNDS):
        before = store.version
        for advance in (
            *(advance_namespaces, bind_claims, scale, advance_deployments, advance_stateful_sets),
            *(advance_replica_sets, advance_jobs),
        ):
            advance(store)
        for pod in store.list(POD):
            kubelet.run(store, pod, missing_images, runtime)
        if store.version == before:
            return
    raise AssertionError(
        f"the controllers did not come to rest in {MAX_ROUNDS} rounds: two of them disagree"
    )


def advance_namespaces(store: Store) -> None:
    """Each has a service account called default."""
    for namespace in store.list(NAMESPACE):
        name = namespace["metadata"]["name"]
        if store.get(SERVICE_ACCOUNT, name, "default") is None:
            store.put(
                Key(SERVICE_ACCOUNT, name, "default"),
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}},
            )


def bind_claims(store: Store) -> None:
    """A claim is bound if its storage class exists; without one it takes the cluster's, if there is
    any."""
    classes = [found["metadata"]["name"] for found in store.list(STORAGE_CLASS)]
    for claim in store.list(CLAIM):
        wanted = claim["spec"].get("storageClassName")
        if wanted in classes or (wanted is None and classes):
            status = {"phase": "Bound", "capacity": claim["spec"]["resources"]["requests"]}
            store.put(_key(CLAIM, claim), claim | {"status": status})


def scale(store: Store) -> None:
    """Autoscalers hold their target within its bounds; what they would measure is not measured."""
    for scaler in [*store.list(AUTOSCALER), *store.list(SCALED_OBJECT)]:
        spec = scaler["spec"]
        low = spec.get("minReplicas", spec.get("minReplicaCount", 1))
        high = spec.get("maxReplicas", spec.get("maxReplicaCount", 100))
        target = store.get(
            target_of(scaler), scaler["metadata"]["namespace"], spec["scaleTargetRef"]["name"]
        )
        if target is not None:
            target["spec"]["replicas"] = min(max(target["spec"].get("replicas", 1), low), high)
            store.put(_key(target_of(scaler), target), target)


def target_of(scaler: Object) -> Resource:
    """The kind that an autoscaler scales; KEDA takes a Deployment where none is named."""
    kind = scaler["spec"]["scaleTargetRef"].get("kind", "Deployment")
    return next(resource for resource in (*BUILT_IN, *OPERATORS) if resource.kind == kind)


def advance_jobs(store: Store) -> None:
    """One Pod each; done when that has succeeded."""
    for job in store.list(JOB):
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        template = job["spec"]["template"]
        labels = (template.get("metadata") or {}).get("labels") or {}
        metadata = (template.get("metadata") or {}) | {
            "labels": labels | {"job-name": name},
            "ownerReferences": [owner(job)],
        }
        pod = store.get(POD, namespace, f"{name}-0") or store.put(
            Key(POD, namespace, f"{name}-0"),
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]},
        )
        done = (pod.get("status") or {}).get("phase") == "Succeeded"
        condition = [{"type": "Complete", "status": "True"}] if done else []
        status = {"active": int(not done), "succeeded": int(done), "conditions": condition}
        store.put(_key(JOB, job), job | {"status": status})


def _key(resource: Resource, value: Object) -> Key:
    return Key(resource, value["metadata"]["namespace"], value["metadata"]["name"])
