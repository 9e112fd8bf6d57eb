"""What becomes of a Pod: it waits for a node, then for all that it names, and then a runtime has
it."""

from __future__ import annotations

from typing import Any, Protocol

from tests.deploy.cluster.catalogue import (
    CLAIM,
    CONFIG_MAP,
    NODE,
    POD,
    PRIORITY_CLASS,
    RUNTIME_CLASS,
    SECRET,
    SERVICE_ACCOUNT,
)
from tests.deploy.cluster.pods import Reference, containers, references
from tests.deploy.cluster.scheduling import place
from tests.deploy.cluster.store import CREATED_AT, Key, Store

Object = dict[str, Any]
_OF_KIND = {
    resource.kind: resource
    for resource in (CLAIM, CONFIG_MAP, PRIORITY_CLASS, RUNTIME_CLASS, SECRET, SERVICE_ACCOUNT)
}


class Runtime(Protocol):
    """What runs containers."""

    def state(self, pod: Object) -> tuple[str, bool]:
        """The phase of a Pod that nothing keeps from running, and whether it is ready."""


class NothingRuns:
    """A Pod that could start counts as ready; one that is to end, as having succeeded."""

    def state(self, pod: Object) -> tuple[str, bool]:
        ends = pod["spec"].get("restartPolicy", "Always") != "Always"
        return ("Succeeded", False) if ends else ("Running", True)


def run(store: Store, pod: Object, missing_images: set[str], runtime: Runtime) -> None:
    """Take the Pod one step further, if it can be."""
    key = Key(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])
    if not pod["spec"].get("nodeName"):
        pod["spec"]["nodeName"], why = place(pod, store.list(NODE), store.list(POD))
        if pod["spec"]["nodeName"] is None:
            del pod["spec"]["nodeName"]
            store.put(key, pod | {"status": _status(pod, "Pending", False, why)})
            return
    lacking = [
        why
        for reference in references(pod["spec"])
        if (why := lack(store, key.namespace, reference))
    ]
    lacking += [
        f"image {c['image']!r} cannot be pulled"
        for c in containers(pod["spec"])
        if c["image"] in missing_images
    ]
    phase, ready = ("Pending", False) if lacking else runtime.state(pod)
    store.put(key, pod | {"status": _status(pod, phase, ready, "; ".join(lacking))})


def lack(store: Store, namespace: str, reference: Reference) -> str | None:
    """Why the Pod cannot have what it names, or nothing."""
    resource = _OF_KIND[reference.kind]
    found = store.get(resource, namespace if resource.namespaced else "", reference.name)
    if found is None:
        return f"{reference.kind} {reference.name!r} not found"
    held = (found.get("data") or {}) | (found.get("binaryData") or {})
    absent = [key for key in reference.keys if key not in held]
    if absent:
        return f"{reference.kind} {reference.name!r} has no key {', '.join(absent)}"
    if resource == CLAIM and (found.get("status") or {}).get("phase") != "Bound":
        return f"{reference.kind} {reference.name!r} is not bound"
    return None


def _status(pod: Object, phase: str, ready: bool, why: str) -> Object:
    state = {
        "Pending": {"waiting": {"reason": "ContainerCreating", "message": why}},
        "Running": {"running": {"startedAt": CREATED_AT}},
        "Succeeded": {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": CREATED_AT,
                "finishedAt": CREATED_AT,
            }
        },
        "Failed": {
            "terminated": {
                "exitCode": 1,
                "reason": "Error",
                "startedAt": CREATED_AT,
                "finishedAt": CREATED_AT,
            }
        },
    }[phase]
    statuses = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "restartCount": 0,
            "ready": ready,
            "state": state,
        }
        for container in pod["spec"]["containers"]
    ]
    conditions = [
        {"type": "PodScheduled", "status": str("nodeName" in pod["spec"]), "message": why},
        {"type": "ContainersReady", "status": str(ready)},
        {"type": "Ready", "status": str(ready)},
    ]
    return {"phase": phase, "message": why, "conditions": conditions, "containerStatuses": statuses}
