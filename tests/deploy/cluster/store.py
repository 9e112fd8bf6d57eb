"""The objects of a cluster and the history of their changes, which is what a watch reads."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.deploy.cluster.catalogue import Resource

Object = dict[str, Any]
CREATED_AT = "2026-01-01T00:00:00Z"
"""Of every object: nothing here depends on the time of day."""


class Key(NamedTuple):
    """An object's address; the namespace of what has none is empty."""

    resource: Resource
    namespace: str
    name: str


class Change(NamedTuple):
    """What a watch reports: ADDED, MODIFIED or DELETED, and the object as it was then."""

    version: int
    type: str
    key: Key
    object: Object


class Store:
    """A dictionary that counts its versions. Values go in and come out as copies."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self._objects: dict[Key, Object] = {}
        self._changes: list[Change] = []

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return copy.deepcopy(self._objects.get(Key(resource, namespace, name)))

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        """All of one kind in one namespace, or in all, by name."""
        keys = [
            key
            for key in self._objects
            if key.resource == resource and namespace in ("", key.namespace)
        ]
        return [copy.deepcopy(self._objects[key]) for key in sorted(keys, key=lambda key: key[1:])]

    def within(self, namespace: str) -> list[Key]:
        """The addresses of all that is in a namespace."""
        return [key for key in self._objects if key.namespace == namespace]

    def put(self, key: Key, value: Object) -> Object:
        """Store the object if it differs, under a new version; a changed spec is a new
        generation."""
        with self.changed:
            value, old = copy.deepcopy(value), self._objects.get(key)
            metadata = value.setdefault("metadata", {})
            metadata |= {"name": key.name} | ({"namespace": key.namespace} if key.namespace else {})
            for field, fresh in (
                ("uid", str(uuid.uuid4())),
                ("creationTimestamp", CREATED_AT),
                ("generation", 1),
            ):
                metadata[field] = old["metadata"][field] if old else fresh
            if old:
                metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
                if value == old:
                    return copy.deepcopy(old)
                metadata["generation"] += value.get("spec") != old.get("spec")
            self._objects[key] = value
            self._record("MODIFIED" if old else "ADDED", key, value)
            return copy.deepcopy(value)

    def remove(self, key: Key) -> None:
        """Forget the object and all that it owns."""
        with self.changed:
            gone = self._objects.pop(key, None)
            if gone is None:
                return
            self._record("DELETED", key, gone)
            for owned in [
                other
                for other, value in self._objects.items()
                if _owned_by(value, gone["metadata"]["uid"])
            ]:
                self.remove(owned)

    def gone(self, resource: Resource, namespace: str) -> list[Object]:
        """What was there once and is no more, as it was last; no name twice."""
        known = {
            change.key: change.object
            for change in self._changes
            if change.key[:2] == (resource, namespace)
        }
        return [
            copy.deepcopy(known[key])
            for key in sorted(known, key=lambda key: key.name)
            if key not in self._objects
        ]

    def changes_after(self, version: int) -> Iterator[Change]:
        return (change for change in list(self._changes) if change.version > version)

    def _record(self, change: str, key: Key, value: Object) -> None:
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        self._changes.append(Change(self.version, change, key, copy.deepcopy(value)))
        self.changed.notify_all()


def _owned_by(value: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in value["metadata"].get("ownerReferences") or [])
