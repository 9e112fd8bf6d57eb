"""What a container is told: its variables with what they refer to, and the Services that they
name."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.deploy.cluster.catalogue import CONFIG_MAP, SECRET
from tests.deploy.cluster.quantities import amount
from tests.deploy.cluster.store import Store

Object = dict[str, Any]
_VARIABLE = re.compile(r"\$\(([-._a-zA-Z0-9]+)\)")
_ADDRESS = re.compile(
    r"(?:^|[/@,\s\"'])([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?):(\d{2,5})(?=$|[/,\s\"'?])"
)
_INSIDE = re.compile(r"([-a-z0-9]+)(?:\.([-a-z0-9]+)(?:\.svc(?:\.cluster\.local)?)?)?")
_LOCAL = {"localhost", "0.0.0.0"}


def variables(store: Store, pod: Object, container: Object) -> dict[str, str]:
    """The container's environment as its process would find it; what is optional and absent is left
    out."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        held = _values(store, namespace, source, "configMapRef", "secretRef")
        found |= {source.get("prefix", "") + key: value for key, value in held.items()}
    for variable in container.get("env") or []:
        reference = variable.get("valueFrom") or {}
        if key := (reference.get("configMapKeyRef") or reference.get("secretKeyRef") or {}).get(
            "key"
        ):
            held = _values(store, namespace, reference, "configMapKeyRef", "secretKeyRef")
            found |= {variable["name"]: held[key]} if key in held else {}
        elif reference:
            found[variable["name"]] = _downward(reference, pod, container)
        else:
            found[variable["name"]] = expanded(variable.get("value", ""), found)
    return found


def _downward(reference: Object, pod: Object, container: Object) -> str:
    """What a container is told of itself."""
    if resource := reference.get("resourceFieldRef"):
        kind, _, name = resource["resource"].partition(".")
        return str(
            math.ceil(
                amount(container["resources"][kind][name]) / amount(resource.get("divisor", "1"))
            )
        )
    path = reference["fieldRef"]["fieldPath"]
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
    }
    return known.get(path) or str(pod["status"].get(path.removeprefix("status."), ""))


def expanded(text: str, known: dict[str, str]) -> str:
    """The text with its `$(NAME)`s filled in, those that are unknown left as they are."""
    return _VARIABLE.sub(lambda match: known.get(match[1], match[0]), text)


def _values(
    store: Store, namespace: str, source: Object, config_map: str, secret: str
) -> dict[str, str]:
    for field, resource in ((config_map, CONFIG_MAP), (secret, SECRET)):
        if reference := source.get(field):
            return data_of(store.get(resource, namespace, reference["name"]) or {})
    return {}


def data_of(value: Object) -> dict[str, str]:
    """What a ConfigMap or a Secret holds, decoded."""
    data = value.get("data") or {}
    if value.get("kind") == "Secret":
        return {key: base64.b64decode(text).decode() for key, text in data.items()}
    return dict(data)


class Called(NamedTuple):
    """A Service that a process is told to call; `where` says by which variable or argument."""

    where: str
    service: str
    namespace: str
    port: int


def calls(store: Store, pod: Object, container: Object) -> Iterator[Called]:
    """Addresses within the cluster among a container's variables and arguments: host and port, the
    host a Service's name."""
    told = variables(store, pod, container) | {
        f"args[{number}]": argument
        for number, argument in enumerate(
            [*(container.get("command") or []), *(container.get("args") or [])]
        )
    }
    for where, text in told.items():
        for host, port in _ADDRESS.findall(text):
            inside = _INSIDE.fullmatch(host)
            if inside and host not in _LOCAL and not host.replace(".", "").isdigit():
                yield Called(where, inside[1], inside[2] or pod["metadata"]["namespace"], int(port))
