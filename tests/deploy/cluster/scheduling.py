"""Which node takes a Pod: by its resources, its selector, its taints. No preference is weighed."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from tests.deploy.cluster.quantities import amount

Object = dict[str, Any]


def node(
    name: str,
    *,
    labels: dict[str, str] | None = None,
    taints: Iterable[Object] = (),
    **allocatable: str,
) -> Object:
    """A Node with a disk of 100 GiB; `cpu`, `memory` and, as `nvidia_com__gpu`, what a device
    plugin adds."""
    room = {"pods": "110", "ephemeral-storage": "100Gi"} | {
        key.replace("__", "/").replace("_", "."): value for key, value in allocatable.items()
    }
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})}
    status = {"allocatable": room, "capacity": room}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {"taints": list(taints)},
        "status": status,
    }


SMALL = (node("small", cpu="4", memory="16Gi"),)
"""One node such as people try a chart on: no GPU."""


def place(pod: Object, nodes: list[Object], pods: list[Object]) -> tuple[str | None, str]:
    """The node for the Pod, or none and the scheduler's reasons."""
    reasons = []
    for candidate in nodes:
        name = candidate["metadata"]["name"]
        there = [other for other in pods if other["spec"].get("nodeName") == name]
        reason = _why_not(pod["spec"], candidate, there)
        if reason is None:
            return name, ""
        reasons.append(f"{name}: {reason}")
    return None, f"0/{len(nodes)} nodes are available: {'; '.join(reasons)}"


def _why_not(spec: Object, candidate: Object, there: list[Object]) -> str | None:
    labels = candidate["metadata"]["labels"]
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "didn't match the Pod's node selector"
    for taint in candidate["spec"]["taints"]:
        if not any(_tolerates(toleration, taint) for toleration in spec.get("tolerations") or []):
            return f"untolerated taint {taint['key']}"
    free = {
        resource: amount(quantity)
        for resource, quantity in candidate["status"]["allocatable"].items()
    }
    wanted = requests(spec)
    for other in there:
        for resource, used in requests(other["spec"]).items():
            free[resource] = free.get(resource, Fraction(0)) - used
    short = sorted(
        resource
        for resource, quantity in wanted.items()
        if quantity > free.get(resource, Fraction(0))
    )
    return f"insufficient {', '.join(short)}" if short else None


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get(
        "value", ""
    )


def requests(spec: Object) -> dict[str, Fraction]:
    """What a Pod asks for: its containers together, or the largest of its init containers; a limit
    is a request, too."""
    total: dict[str, Fraction] = {"pods": Fraction(1)}
    for container in spec["containers"]:
        for resource, quantity in _requests_of(container).items():
            total[resource] = total.get(resource, Fraction(0)) + quantity
    for container in spec.get("initContainers") or []:
        for resource, quantity in _requests_of(container).items():
            total[resource] = max(total.get(resource, Fraction(0)), quantity)
    return total


def _requests_of(container: Object) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    asked = (resources.get("limits") or {}) | (resources.get("requests") or {})
    return {resource: amount(quantity) for resource, quantity in asked.items()}
