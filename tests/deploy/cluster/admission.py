"""What the API server refuses: by the schema, and by what it checks beyond its schema. Changes
nothing."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from tests.deploy.cluster.catalogue import OPERATORS, Resource
from tests.deploy.cluster.pod_checks import pod_problems
from tests.deploy.cluster.pods import labels_of, template_of
from tests.deploy.cluster.refusals import invalid
from tests.deploy.cluster.schemas import violation
from tests.deploy.cluster.selectors import selects

Object = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_SCHEDULE = re.compile(r"@\w+|(\S+\s+){4}\S+")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
MAX_OBJECT_BYTES = 1 << 20
MAX_ANNOTATION_BYTES = 1 << 18
FIXED = {
    "Deployment": ("selector",),
    "ReplicaSet": ("selector",),
    "Job": ("selector", "template", "completionMode"),
    "StatefulSet": ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeMode", "selector"),
    "Service": ("clusterIP",),
}
"""Fields of a spec that an update may not change."""


def admit(
    resource: Resource, value: Object, old: Object | None, *, version: str, restricted: bool
) -> None:
    """Let the object pass, or say all that is wrong with it; `restricted` is its namespace's Pod
    security level.

    Raises:
        Refused: 422, with every problem in one sentence each.
    """
    name = value["metadata"].get("name", "")
    wrong = None if resource in OPERATORS else violation(value, version)
    if wrong:
        raise invalid(resource.kind, name, [wrong])
    problems = [
        *_metadata_problems(resource, value),
        *_kind_problems(resource, value),
        *_changed(resource, value, old),
    ]
    template = template_of(value)
    if template:
        problems += _label_problems(template.get("metadata") or {})
        problems += pod_problems(template["spec"], resource.kind, restricted=restricted)
    if problems:
        raise invalid(resource.kind, name, problems)


def _metadata_problems(resource: Resource, value: Object) -> Iterator[str]:
    name = value["metadata"]["name"]
    service = resource.kind == "Service"
    pattern, length = (_SERVICE_NAME, 63) if service else (_SUBDOMAIN, 253)
    if not pattern.fullmatch(name) or len(name) > length:
        yield f"metadata.name: {name!r} is no name for a {resource.kind}"
    if resource.kind == "CronJob" and len(name) > 52:
        yield "metadata.name: must be no more than 52 characters, the Jobs' names are made of it"
    yield from _label_problems(value["metadata"])


def _label_problems(metadata: Object) -> Iterator[str]:
    for key, label in (metadata.get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(label):
            yield f"metadata.labels: {key}={label} is no label"
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if not _LABEL_KEY.fullmatch(key):
            yield f"metadata.annotations: {key!r} is no key"
    if sum(len(key) + len(text) for key, text in annotations.items()) > MAX_ANNOTATION_BYTES:
        yield f"metadata.annotations: longer than {MAX_ANNOTATION_BYTES} bytes"


def _kind_problems(resource: Resource, value: Object) -> Iterator[str]:
    spec = value.get("spec") or {}
    match resource.kind:
        case "ConfigMap" | "Secret":
            yield from _data_problems(value, encoded=resource.kind == "Secret")
        case "Deployment" | "StatefulSet" | "ReplicaSet" if not selects(
            spec["selector"], labels_of(spec["template"])
        ):
            yield "spec.selector: does not match the template's labels"
        case "PodDisruptionBudget" if "minAvailable" in spec and "maxUnavailable" in spec:
            yield "spec: minAvailable and maxUnavailable are mutually exclusive"
        case "HorizontalPodAutoscaler" if (
            not 1 <= spec.get("minReplicas", 1) <= spec["maxReplicas"]
        ):
            yield "spec.minReplicas: must be from 1 to maxReplicas"
        case "Service":
            yield from _service_problems(spec)
        case "CronJob" if not _SCHEDULE.fullmatch(spec["schedule"]):
            yield f"spec.schedule: {spec['schedule']!r} is no schedule"


def _data_problems(value: Object, *, encoded: bool) -> Iterator[str]:
    size = 0
    for key, text in ((value.get("data") or {}) | (value.get("binaryData") or {})).items():
        if not _DATA_KEY.fullmatch(key):
            yield f"data: {key!r} is no key"
        try:
            size += len(base64.b64decode(text, validate=True) if encoded else text.encode())
        except binascii.Error:
            yield f"data[{key}]: not base64"
    if size > MAX_OBJECT_BYTES:
        yield f"data: {size} bytes, more than {MAX_OBJECT_BYTES}"


def _service_problems(spec: Object) -> Iterator[str]:
    ports = spec.get("ports") or []
    names = [port.get("name") for port in ports]
    if len(ports) > 1 and (None in names or len({*names}) < len(names)):
        yield "spec.ports: several ports need a name of their own each"
    if not ports and spec.get("clusterIP") != "None":
        yield "spec.ports: required"


def _changed(resource: Resource, value: Object, old: Object | None) -> Iterator[str]:
    if old is None:
        return
    spec, before = value.get("spec") or {}, old.get("spec") or {}
    for field in FIXED.get(resource.kind, ()):
        if spec.get(field) != before.get(field):
            yield f"spec.{field}: field is immutable"
    if old.get("immutable") and any(
        value.get(field) != old.get(field) for field in ("data", "binaryData", "immutable")
    ):
        yield "data: field is immutable when `immutable` is set"
    for field in ("type", "roleRef"):
        if resource.kind in {"Secret", "RoleBinding"} and value.get(field) != old.get(field):
            yield f"{field}: field is immutable"
    if resource.kind == "Pod" and _fixed_of(spec) != _fixed_of(before):
        yield "spec: a Pod may change its images and its deadline alone"


def _fixed_of(pod_spec: Object) -> Object:
    images = [
        {key: value for key, value in container.items() if key != "image"}
        for container in pod_spec["containers"]
    ]
    return {
        key: value
        for key, value in pod_spec.items()
        if key not in {"activeDeadlineSeconds", "tolerations"}
    } | {"containers": images}
