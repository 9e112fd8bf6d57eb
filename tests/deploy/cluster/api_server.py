"""The cluster over HTTP, on the loopback, as helm and kubectl ask for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.deploy.cluster.api import Cluster, covers
from tests.deploy.cluster.catalogue import NAMESPACE, Resource
from tests.deploy.cluster.refusals import Refused

Object = dict[str, Any]
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
OPENAPI = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""An empty document of this type: schemas are checked here, not by the client."""
MERGE, STRATEGIC, APPLY = (
    f"application/{kind}"
    for kind in ("merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)
MAX_BODY_BYTES = 8 << 20
WATCH_SECONDS = 60


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    """Serve the cluster on a free port of the loopback; gives its URL."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("ClusterHandler", (Handler,), {"cluster": cluster})
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the base class calls them so

    def log_message(self, *_: object) -> None:
        """Say nothing: the tests' own output is what is read."""

    def _answer(self) -> None:
        address = urlsplit(self.path)
        self.query = dict(parse_qsl(address.query))
        length = int(self.headers.get("Content-Length") or 0)
        assert length <= MAX_BODY_BYTES
        self.body = self.rfile.read(length)
        try:
            answer = self._described(address.path)
            if answer is None:
                answer = self._asked(address.path)
        except ConnectionError:
            self.close_connection = True  # who watched has gone
        except Refused as refused:
            self._send(refused.status, failure(refused))
        else:
            if answer is not None:
                self._send(201 if self.command == "POST" else 200, answer)

    def _described(self, path: str) -> Object | bytes | None:
        """What discovery asks for."""
        groups = sorted(
            {
                (resource.group, resource.version)
                for resource in self.cluster.resources
                if resource.group
            }
        )
        match path.strip("/").split("/"):
            case ["version"]:
                major, minor = self.cluster.version.split(".")
                return {
                    "major": major,
                    "minor": minor,
                    "gitVersion": f"v{self.cluster.version}.0",
                    "platform": "linux/amd64",
                }
            case ["openapi", "v2"]:
                return b""
            case ["api"]:
                return {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                versions = [
                    {"groupVersion": f"{group}/{version}", "version": version}
                    for group, version in groups
                ]
                named = zip(groups, versions, strict=True)
                listed = [
                    {"name": group, "versions": [only], "preferredVersion": only}
                    for (group, _), only in named
                ]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
            case ["api", "v1"]:
                return self._resources("v1")
            case ["apis", group, version] if (group, version) in groups:
                return self._resources(f"{group}/{version}")
        return None

    def _resources(self, api_version: str) -> Object:
        listed = [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
            }
            | {"kind": resource.kind, "verbs": VERBS, "shortNames": list(resource.short_names)}
            for resource in self.cluster.resources
            if resource.api_version == api_version
        ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": api_version,
            "resources": listed,
        }

    def _asked(self, path: str) -> Object | bytes | None:
        """What is asked of one kind; nothing where a watch has already streamed its answer."""
        resource, namespace, name, sub = self._addressed(path)
        if sub:
            return self._subresource(resource, namespace, name, sub)
        dry_run = self.query.get("dryRun") == "All"
        match self.command:
            case "GET" if name:
                return self._marked(resource, self.cluster.get(resource, namespace, name))
            case "GET" if self.query.get("watch") in {"1", "true"}:
                return self._watch(resource, namespace)
            case "GET":
                return self._listed(resource, namespace)
            case "POST" if not name:
                return self._marked(
                    resource,
                    self.cluster.create(resource, namespace, self._sent(), dry_run=dry_run),
                )
            case "PUT" if name:
                return self._marked(
                    resource,
                    self.cluster.replace(resource, namespace, name, self._sent(), dry_run=dry_run),
                )
            case "PATCH" if name:
                return self._marked(
                    resource, self._patched(resource, namespace, name, dry_run=dry_run)
                )
            case "DELETE" if name:
                return self._marked(
                    resource, self.cluster.delete(resource, namespace, name, dry_run=dry_run)
                )
        raise Refused(405, "MethodNotAllowed", f"{self.command} {path} is not served")

    def _addressed(self, path: str) -> tuple[Resource, str, str, str]:
        """Kind, namespace, name and subresource of a path; empty where it names none."""
        parts = path.strip("/").split("/")
        api_version, rest = (
            ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        )
        namespace = ""
        if len(rest) > 2 and rest[0] == NAMESPACE.plural:
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = [*rest, "", "", ""][:3]
        for resource in self.cluster.resources:
            if (resource.api_version, resource.plural) == (api_version, plural):
                return resource, namespace, name, sub
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def _sent(self) -> Object:
        if "protobuf" in self.headers.get("Content-Type", ""):
            raise Refused(415, "UnsupportedMediaType", "this server reads JSON")
        value: Object = json.loads(self.body)
        value.setdefault("metadata", {})
        return value

    def _patched(self, resource: Resource, namespace: str, name: str, *, dry_run: bool) -> Object:
        kind = self.headers.get("Content-Type", "").partition(";")[0]
        if kind == APPLY:
            return self.cluster.apply(
                resource, namespace, name, yaml.safe_load(self.body), dry_run=dry_run
            )
        if kind not in {MERGE, STRATEGIC}:
            raise Refused(415, "UnsupportedMediaType", f"{kind} is not served")
        patch = json.loads(self.body)
        return self.cluster.patch(
            resource, namespace, name, patch, strategic=kind == STRATEGIC, dry_run=dry_run
        )

    def _subresource(self, resource: Resource, namespace: str, name: str, sub: str) -> bytes:
        self.cluster.get(resource, namespace, name)
        if (resource.kind, sub, self.command) == ("Pod", "log", "GET"):
            return b"no container ran\n"
        raise Refused(404, "NotFound", f"{resource.plural}/{sub} is not served")

    def _listed(self, resource: Resource, namespace: str) -> Object:
        items = self.cluster.list(resource, namespace, *self._selectors())
        metadata = {"resourceVersion": str(self.cluster.store.version)}
        items = [self._marked(resource, item) for item in items]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }

    def _selectors(self) -> tuple[str, str]:
        return self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")

    def _marked(self, resource: Resource, value: Object) -> Object:
        return {"apiVersion": resource.api_version, "kind": resource.kind} | value

    def _watch(self, resource: Resource, namespace: str) -> None:
        """Stream what changes: from a version on, or from what there is now where none is named."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = int(self.query.get("resourceVersion") or 0)
        if not seen:
            seen = self._stream_what_is_there(resource, namespace)
        until = time.monotonic() + float(self.query.get("timeoutSeconds") or WATCH_SECONDS)
        store = self.cluster.store
        while (left := until - time.monotonic()) > 0:
            with store.changed:
                store.changed.wait_for(lambda: store.version > seen, timeout=left)  # noqa: B023 - read at once
                changes = list(store.changes_after(seen))
            for change in changes:
                seen = change.version
                here = change.key.resource == resource and namespace in ("", change.key.namespace)
                if here and covers(change.object, *self._selectors()):
                    self._chunk(change.type, self._marked(resource, change.object))
        self.wfile.write(b"0\r\n\r\n")

    def _stream_what_is_there(self, resource: Resource, namespace: str) -> int:
        with self.cluster.store.changed:
            version = self.cluster.store.version
            items = self.cluster.list(resource, namespace, *self._selectors())
        for item in items:
            self._chunk("ADDED", self._marked(resource, item))
        if self.query.get("sendInitialEvents") == "true":
            done = {
                "annotations": {"k8s.io/initial-events-end": "true"},
                "resourceVersion": str(version),
            }
            self._chunk("BOOKMARK", self._marked(resource, {"metadata": done}))
        return version

    def _chunk(self, kind: str, value: Object) -> None:
        line = json.dumps({"type": kind, "object": value}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, answer: Object | bytes) -> None:
        text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = (
            "application/json"
            if isinstance(answer, dict)
            else OPENAPI
            if "openapi" in self.path
            else "text/plain"
        )
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def failure(refused: Refused) -> Object:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return status | {"message": str(refused), "reason": refused.reason, "code": refused.status}
