"""What each request does to the cluster, without HTTP."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable
from typing import Any

from tests.deploy.cluster.admission import admit
from tests.deploy.cluster.catalogue import (
    BUILT_IN,
    NAMESPACE,
    NODE,
    OPERATORS,
    POD,
    STORAGE_CLASS,
    Resource,
)
from tests.deploy.cluster.controllers import reconcile
from tests.deploy.cluster.kubelet import NothingRuns, Runtime
from tests.deploy.cluster.patching import merge, merge_strategically
from tests.deploy.cluster.quota import quota_problem
from tests.deploy.cluster.refusals import Refused
from tests.deploy.cluster.scheduling import SMALL
from tests.deploy.cluster.schemas import schema_of
from tests.deploy.cluster.selectors import query_selects
from tests.deploy.cluster.store import Key, Store

Object = dict[str, Any]
RESTRICTED = "pod-security.kubernetes.io/enforce"


class Cluster:
    """One cluster.

    Args:
        version: Of Kubernetes, such as 1.31: it decides which fields there are.
        operators: Whether KEDA's, Prometheus', and the Gateway API's kinds are served.
        nodes: What Pods can be placed on.
        runtime: What runs containers; none are run by default.

    `missing_images` are those that no node can pull; they may change at any time, and `settle`
    after that.
    """

    def __init__(
        self,
        version: str = "1.31",
        *,
        operators: bool = False,
        nodes: Iterable[Object] = SMALL,
        runtime: Runtime | None = None,
    ) -> None:
        self.version = version
        self.runtime = runtime or NothingRuns()
        self.resources = (*BUILT_IN, *OPERATORS) if operators else BUILT_IN
        self.missing_images: set[str] = set()
        self.store = Store()
        for value in nodes:
            self.store.put(Key(NODE, "", value["metadata"]["name"]), value)
        standard = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "provisioner": "example.com/standard",
        }
        self.store.put(Key(STORAGE_CLASS, "", "standard"), standard)
        for name in ("default", "kube-system", "kube-public"):
            self.create(
                NAMESPACE, "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self.store.get(resource, namespace, name)
        if found is None:
            raise Refused(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    def list(
        self, resource: Resource, namespace: str, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Those of a kind that the two selectors cover."""
        found = self.store.list(resource, namespace)
        return [value for value in found if covers(value, labels, fields)]

    def create(
        self, resource: Resource, namespace: str, value: Object, *, dry_run: bool = False
    ) -> Object:
        with self.store.changed:
            value = completed(resource, value)
            name = value["metadata"].get("name", "")
            if resource.namespaced:
                self.get(NAMESPACE, "", namespace)
            self._admit(resource, namespace, value, None)
            if self.store.get(resource, namespace, name):
                raise Refused(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
            if resource == POD and (problem := quota_problem(self.store, namespace, value["spec"])):
                raise Refused(403, "Forbidden", f'pods "{name}" is forbidden: {problem}')
            return value if dry_run else self._keep(Key(resource, namespace, name), value)

    def replace(
        self, resource: Resource, namespace: str, name: str, value: Object, *, dry_run: bool = False
    ) -> Object:
        with self.store.changed:
            old = self.get(resource, namespace, name)
            value = completed(resource, value)
            expected = value["metadata"].get("resourceVersion", old["metadata"]["resourceVersion"])
            if expected != old["metadata"]["resourceVersion"]:
                raise Refused(
                    409, "Conflict", f'Operation cannot be fulfilled on {resource.plural} "{name}"'
                )
            value.pop("status", None)
            value |= {"status": old["status"]} if "status" in old else {}
            if resource.kind == "Service":
                value["spec"].setdefault("clusterIP", old["spec"]["clusterIP"])
            self._admit(resource, namespace, value, old)
            return value if dry_run else self._keep(Key(resource, namespace, name), value)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Object,
        *,
        strategic: bool,
        dry_run: bool = False,
    ) -> Object:
        with self.store.changed:
            old = self.get(resource, namespace, name)
            if strategic and resource in OPERATORS:
                raise Refused(
                    415, "UnsupportedMediaType", "an operator's kind takes no strategic merge patch"
                )
            schema = schema_of(resource.api_version, resource.kind, self.version)
            patched = (
                merge_strategically(old, patch, schema, self.version)
                if strategic
                else merge(old, patch)
            )
            return self.replace(resource, namespace, name, patched, dry_run=dry_run)

    def apply(
        self, resource: Resource, namespace: str, name: str, value: Object, *, dry_run: bool = False
    ) -> Object:
        """Server-side apply, with nobody to contend for a field."""
        with self.store.changed:
            if self.store.get(resource, namespace, name) is None:
                return self.create(resource, namespace, value, dry_run=dry_run)
            strategic = resource not in OPERATORS
            return self.patch(
                resource, namespace, name, value, strategic=strategic, dry_run=dry_run
            )

    def delete(
        self, resource: Resource, namespace: str, name: str, *, dry_run: bool = False
    ) -> Object:
        with self.store.changed:
            found = self.get(resource, namespace, name)
            if not dry_run:
                self.store.remove(Key(resource, namespace, name))
                if resource == NAMESPACE:
                    for key in self.store.within(name):
                        self.store.remove(key)
                self.settle()
            return found

    def settle(self) -> None:
        """Let the controllers work until nothing changes."""
        with self.store.changed:
            reconcile(self.store, self.missing_images, self.runtime)

    def _admit(self, resource: Resource, namespace: str, value: Object, old: Object | None) -> None:
        found = self.store.get(NAMESPACE, "", namespace) or {"metadata": {}}
        restricted = (found["metadata"].get("labels") or {}).get(RESTRICTED) == "restricted"
        admit(resource, value, old, version=self.version, restricted=restricted)

    def _keep(self, key: Key, value: Object) -> Object:
        self.store.put(key, value)
        self.settle()
        return self.store.get(*key) or value


def covers(value: Object, labels: str, fields: str) -> bool:
    """Whether the two selectors of a query cover an object."""
    metadata = value["metadata"]
    known = {"metadata.name": metadata["name"], "metadata.namespace": metadata.get("namespace", "")}
    known |= {
        "status.phase": (value.get("status") or {}).get("phase", ""),
        "type": value.get("type", ""),
    }
    return query_selects(labels, metadata.get("labels") or {}) and query_selects(fields, known)


def completed(resource: Resource, value: Object) -> Object:
    """The object with the few defaults that controllers and clients count on."""
    value = copy.deepcopy(value)
    spec = value.get("spec") or {}
    match resource.kind:
        case "Secret":
            texts = value.pop("stringData", None) or {}
            data = value.get("data") or {}
            value["data"] = data | {
                key: base64.b64encode(text.encode()).decode() for key, text in texts.items()
            }
            value.setdefault("type", "Opaque")
        case "Namespace":
            own = {"kubernetes.io/metadata.name": value["metadata"]["name"]}
            value["metadata"]["labels"] = (value["metadata"].get("labels") or {}) | own
        case "Deployment" | "StatefulSet" | "ReplicaSet":
            spec.setdefault("replicas", 1)
        case "Service":
            spec.setdefault("type", "ClusterIP")
            spec.setdefault(
                "clusterIP", f"10.96.0.{sum(value['metadata']['name'].encode()) % 250 + 1}"
            )
    return value
