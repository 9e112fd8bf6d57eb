"""Reading Pod specs: where they are in each kind, and what they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Object = dict[str, Any]


def template_of(value: Object) -> Object | None:
    """The Pod template within an object, or the Pod itself; none where there is none."""
    spec = value.get("spec") or {}
    if value.get("kind") == "Pod":
        return value
    if value.get("kind") == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return (
        spec.get("template")
        if value.get("kind") in {"CronJob", "Deployment", "Job", "ReplicaSet", "StatefulSet"}
        else None
    )


def labels_of(value: Object) -> dict[str, str]:
    labels: dict[str, str] = (value.get("metadata") or {}).get("labels") or {}
    return labels


def containers(pod_spec: Object) -> list[Object]:
    """Those of a Pod spec that run beside or before each other, first ones first."""
    return [*(pod_spec.get("initContainers") or []), *pod_spec["containers"]]


def ports(pod_spec: Object) -> list[Object]:
    return [port for container in containers(pod_spec) for port in container.get("ports") or []]


def declares_port(pod_spec: Object, port: int | str) -> bool:
    """Whether a container declares the port, by its name or its number."""
    return any(
        port in (declared.get("name"), declared["containerPort"]) for declared in ports(pod_spec)
    )


class Reference(NamedTuple):
    """Something that a Pod cannot start without."""

    kind: str
    name: str
    keys: tuple[str, ...] = ()


def references(pod_spec: Object) -> Iterator[Reference]:
    """What must exist before the Pod can start: the kubelet's reasons to wait."""
    yield Reference("ServiceAccount", pod_spec.get("serviceAccountName") or "default")
    for field, kind in (
        ("priorityClassName", "PriorityClass"),
        ("runtimeClassName", "RuntimeClass"),
    ):
        if name := pod_spec.get(field):
            yield Reference(kind, name)
    for volume in pod_spec.get("volumes") or []:
        for source in (volume, *((volume.get("projected") or {}).get("sources") or [])):
            yield from _of_volume(source)
    for container in containers(pod_spec):
        for source in container.get("envFrom") or []:
            yield from _of_environment(source, "configMapRef", "secretRef")
        for variable in container.get("env") or []:
            yield from _of_environment(
                variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef"
            )


def _of_volume(source: Object) -> Iterator[Reference]:
    if claim := source.get("persistentVolumeClaim"):
        yield Reference("PersistentVolumeClaim", claim["claimName"])
    for field, kind, name in (
        ("configMap", "ConfigMap", "name"),
        ("secret", "Secret", "secretName"),
    ):
        if (held := source.get(field)) and not held.get("optional"):
            keys = tuple(item["key"] for item in held.get("items") or [])
            yield Reference(kind, held.get(name) or held["name"], keys)


def _of_environment(source: Object, config_map: str, secret: str) -> Iterator[Reference]:
    for field, kind in ((config_map, "ConfigMap"), (secret, "Secret")):
        if (held := source.get(field)) and not held.get("optional"):
            yield Reference(kind, held["name"], (held["key"],) if "key" in held else ())


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )
