"""The services that clients are pointed at: `gmr serve` with API keys, and a gateway whose worker
is not there.

Each client has three keys, of a tenant each, so that the service's log tells whose a request was:
one without a quota, one whose quota is soon used up, and one whose only request in flight is there
already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conftest import CALM, free_port
from tests.processes import Gmr, eventually
from tests.promises.raw_http import dial

PAIRS_PER_SECOND = 0.13
"""One pair may be saved up, so that a request of three is followed by 15 seconds of debt: a second
one comes within them on a busy machine, too."""
FREE, LIMITED, BUSY = "free", "limited", "busy"
QUOTAS: dict[str, dict[str, float]] = {
    FREE: {},
    LIMITED: {"pairs_per_second": PAIRS_PER_SECOND},
    BUSY: {"max_in_flight": 1},
}
WRONG_KEY = "gmr_" + "0" * 43
_BODY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Targets:
    """The services. `worker_port` is where the gateway `empty` expects its worker."""

    answering: Gmr
    empty: Gmr
    worker_port: int


def tenant_of(client: str, quota: str) -> str:
    return f"{client}.{quota}"


def key_of(client: str, quota: str = FREE) -> str:
    digest = hashlib.sha256(tenant_of(client, quota).encode()).hexdigest()
    return f"gmr_{digest[:43]}"


def statuses(gmr: Gmr, client: str, quota: str = FREE) -> list[int]:
    """The statuses of the requests that a client made with a key, in their order; without puts of
    images, and the requests that were told to put some."""
    found: list[int] = []
    for line in gmr.said().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        about_images = entry.get("route") == "/v1/images" or entry.get("code") == "unknown_image"
        if entry.get("tenant") == tenant_of(client, quota) and not about_images:
            found.append(entry["status"])
    return found


@contextmanager
def running(folder: Path, clients: Sequence[str]) -> Iterator[Targets]:
    """Start the services, with the keys of `clients` and their requests in flight."""
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": _entries(clients)}))
    settings = {
        "RERANK_API_KEYS_FILE": str(keys),
        "RERANK_READ_TIMEOUT_SECONDS": "600",  # for the requests in flight
        "RERANK_CAPACITY_TOKENS": "10000000",  # all clients ask at the same time
    }
    worker_port = free_port()
    workers = ("--workers", f"http://127.0.0.1:{worker_port}")

    with ExitStack() as stack:
        answering = stack.enter_context(Gmr("serve", log=folder / "serve", **settings, **CALM))
        empty = stack.enter_context(Gmr("gateway", *workers, log=folder / "gateway", **settings))
        eventually(lambda: empty.status("/health/live") == httpx.codes.OK, why=empty.said)
        answering.await_ready()
        for client in clients:
            _begin_request(stack, answering, key_of(client, BUSY))
        yield Targets(answering, empty, worker_port)


def _entries(clients: Sequence[str]) -> list[dict[str, str | float]]:
    """The entries of a keys file."""
    entries: list[dict[str, str | float]] = []
    for client in clients:
        for quota, bounds in QUOTAS.items():
            digest = hashlib.sha256(key_of(client, quota).encode()).hexdigest()
            entries.append({"sha256": digest, "tenant": tenant_of(client, quota), **bounds})
    return entries


def _begin_request(stack: ExitStack, gmr: Gmr, key: str) -> None:
    """Send a request without its last byte, which is in flight until the stack ends."""
    head = (
        "POST /rerank HTTP/1.1\r\nhost: clients\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {_BODY_BYTES}\r\n\r\n"
    )
    connection = stack.enter_context(dial(gmr.url))
    connection.sendall(head.encode() + b" " * (_BODY_BYTES - 1))
