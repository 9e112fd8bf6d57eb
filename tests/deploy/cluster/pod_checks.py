"""What the API server checks of a Pod's spec beyond its schema, and what a restricted namespace
asks on top."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.deploy.cluster.pods import containers
from tests.deploy.cluster.quantities import amount

Object = dict[str, Any]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
DEFAULT_GRACE_SECONDS = 30
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_RESTARTS = {
    "Deployment": {"Always"},
    "ReplicaSet": {"Always"},
    "StatefulSet": {"Always"},
    "Job": {"Never", "OnFailure"},
    "CronJob": {"Never", "OnFailure"},
}
_RESTRICTED_VOLUMES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
}
"""The admission controller lets image volumes pass from 1.33 on; here they always do."""


def pod_problems(spec: Object, owner: str, *, restricted: bool) -> Iterator[str]:
    """What the API server refuses; `owner` is the kind that the Pod's template is in."""
    allowed = _RESTARTS.get(owner, {"Always", "OnFailure", "Never"})
    if spec.get("restartPolicy", "Always") not in allowed:
        yield f"spec.restartPolicy: a {owner} allows {sorted(allowed)}"
    yield from _duplicates("volumes", (volume["name"] for volume in spec.get("volumes") or []))
    yield from _duplicates("containers", (container["name"] for container in containers(spec)))
    for container in containers(spec):
        yield from (
            f"containers[{container['name']}].{problem}"
            for problem in _container_problems(container, spec)
        )
    if restricted:
        yield from (
            f"violates PodSecurity restricted: {problem}" for problem in _restricted_problems(spec)
        )


def _container_problems(container: Object, spec: Object) -> Iterator[str]:
    if not container.get("image"):
        yield "image: required"
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    mounts = container.get("volumeMounts") or []
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"volumeMounts: no volume is called {mount['name']!r}"
    yield from _duplicates("volumeMounts.mountPath", (mount["mountPath"] for mount in mounts))
    names = [port["name"] for port in container.get("ports") or [] if port.get("name")]
    yield from _duplicates("ports.name", names)
    yield from (
        f"ports.name: {name!r} is no port's name"
        for name in names
        if not _PORT_NAME.fullmatch(name)
    )
    for variable in container.get("env") or []:
        if not _VARIABLE.fullmatch(variable["name"]):
            yield f"env: {variable['name']!r} is no variable's name"
        if variable.get("value") and variable.get("valueFrom"):
            yield f"env[{variable['name']}]: has a value and where to take it from"
    yield from _resource_problems(container.get("resources") or {})
    yield from _lifecycle_problems(container, spec)


def _resource_problems(resources: Object) -> Iterator[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    try:
        over = [
            name
            for name in requests
            if name in limits and amount(requests[name]) > amount(limits[name])
        ]
        uneven = [
            name
            for name in requests | limits
            if "/" in name and requests.get(name, limits.get(name)) != limits.get(name)
        ]
    except ValueError as error:
        yield f"resources: {error}"
        return
    yield from (f"resources.requests.{name}: must be at most the limit" for name in over)
    yield from (f"resources.{name}: must be requested as it is limited" for name in uneven)


def _lifecycle_problems(container: Object, spec: Object) -> Iterator[str]:
    for probe in PROBES:
        if (
            probe != "readinessProbe"
            and (container.get(probe) or {}).get("successThreshold", 1) != 1
        ):
            yield f"{probe}.successThreshold: must be 1"
        for number in ("periodSeconds", "timeoutSeconds", "failureThreshold"):
            if (container.get(probe) or {}).get(number, 1) < 1:
                yield f"{probe}.{number}: must be at least 1"
    pause = ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep")
    if pause and not 0 < pause["seconds"] <= spec.get(
        "terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS
    ):
        yield "lifecycle.preStop.sleep: must be within the grace period"


def _restricted_problems(spec: Object) -> Iterator[str]:
    """By the Pod Security Standards' restricted profile."""
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(host):
            yield f"{host}=true"
    for volume in spec.get("volumes") or []:
        if (kinds := {*volume} - {"name"}) - _RESTRICTED_VOLUMES:
            yield f"volume {volume['name']!r} is a {', '.join(kinds)}"
    for container in containers(spec):
        yield from (
            f"{container['name']}: {problem}"
            for problem in _unrestricted(container, spec.get("securityContext") or {})
        )


def _unrestricted(container: Object, of_pod: Object) -> Iterator[str]:
    own = container.get("securityContext") or {}
    merged = of_pod | own
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation != false"
    if "ALL" not in (own.get("capabilities") or {}).get("drop", []):
        yield "unrestricted capabilities"
    if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
        yield "runAsNonRoot != true"
    if (merged.get("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "no seccompProfile"
    if own.get("privileged") or any(port.get("hostPort") for port in container.get("ports") or []):
        yield "privileged, or a hostPort"


def _duplicates(what: str, values: Iterable[str]) -> Iterator[str]:
    return (f"{what}: {value!r} twice" for value, count in Counter(values).items() if count > 1)
