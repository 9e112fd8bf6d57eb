"""`gmr bench --worst-requests`: the cost of the most expensive legal requests, and their effect on
another tenant.

One tenant sends each shape once, to a service of its own, while another tenant sends small requests
one after the other. Depends on HTTP and process trees, on nothing inside the service. Invariant:
CPU time is counted until all work for the request is over, and includes child processes that have
ended.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, cleaning_up, cpu_seconds, memory_bytes
from service.bench.results import write_report
from service.bench.service import RunningService, start_service
from service.bench.worst_requests.connections import CONNECTIONS
from service.bench.worst_requests.report import (
    BOUNDS,
    Measured,
    SmallRequests,
    row,
    sentence,
    table,
)
from service.bench.worst_requests.shapes import DEADLINE_MS, SHAPES

_IDLE_SHARE = 0.1
_IDLE_SECONDS = 1.0
_SETTLE_SECONDS = 120.0
_MEMORY_SECONDS = 0.1
_ANSWER_SECONDS = 180.0
_LEAST_SMALL_REQUESTS = 5


def run_worst_requests(plan: Plan, shapes: Sequence[str]) -> int:
    """Measure, print and write; the exit code is 1 where a bound is not held. Raises as `run_bench`
    does."""
    console = Console()
    rows: list[dict[str, Any]] = []
    for name in shapes:
        with (
            cleaning_up(),
            tempfile.TemporaryDirectory(prefix="gmr-bench-") as scratch,
            ExitStack() as stack,
        ):
            rows.append(_measure(name, plan, Path(scratch), stack))
        console.print(sentence(rows[-1]), soft_wrap=True)

    console.print(table(rows))
    report = {
        **describe(plan),
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "deadline_ms": DEADLINE_MS,
        "bounds": BOUNDS,
        "rows": rows,
    }
    if plan.output:
        write_report(report, plan.output)
    return 0 if all(row["held"] for row in rows) else 1


def chosen_shapes(names: str) -> list[str]:
    """The shapes named in a list with commas, all of them where it is empty; raises `BenchRefused`
    where there is no such shape."""
    known = [*(shape.name for shape in SHAPES), *CONNECTIONS]
    chosen = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    for name in chosen:
        if name not in known:
            raise BenchRefused(f"There is no shape {name!r}: choose from {', '.join(known)}.")
    return list(chosen) or known


def _measure(name: str, plan: Plan, scratch: Path, stack: ExitStack) -> dict[str, Any]:
    """The row of one shape, against a service that has served only small requests before."""
    key, other_key = secrets.token_hex(16), secrets.token_hex(16)
    keys_file = scratch / "keys.json"
    entries = [_key_entry(key, "large"), _key_entry(other_key, "small")]
    keys_file.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    settings = {"RERANK_API_KEYS_FILE": str(keys_file), "RERANK_METRICS_PUBLIC": "true"}
    service = start_service(
        plan, make_checkpoint(plan, scratch), plan.engine, scratch, stack, **settings
    )

    action, description, body_bytes = _action(name, service, key, plan.documents)
    alone = _send_small_requests(service, other_key, lambda: False)
    measured = _measure_action(service, other_key, action)
    return row(name, description, body_bytes, measured) | {"alone_p95_s": alone.p95()}


def _key_entry(key: str, tenant: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant}


def _action(
    name: str, service: RunningService, key: str, size: int
) -> tuple[Callable[[], int], str, int]:
    """A shape's action, which returns a status; its description; and the bytes of its body."""
    if name in CONNECTIONS:
        holding = CONNECTIONS[name]

        def hold() -> int:
            holding.hold(service.url, key, size)
            return 0

        return hold, holding.description, 0

    (shape,) = (shape for shape in SHAPES if shape.name == name)
    body = shape.body(size)
    return lambda: _send(service.url, key, body), shape.description, len(body)


def _measure_action(service: RunningService, other_key: str, action: Callable[[], int]) -> Measured:
    """CPU time, memory and another tenant's delays during an action, and until all of its work is
    over."""
    programs = service.programs
    cpu_before, memory_before = cpu_seconds(programs), memory_bytes(programs)
    statuses: list[int] = []
    acting = threading.Thread(target=lambda: statuses.append(action()))

    with _peak_memory(programs) as peak:
        begun = time.monotonic()
        acting.start()
        others = _send_small_requests(service, other_key, acting.is_alive)
        acting.join(_ANSWER_SECONDS)
        answered_seconds = time.monotonic() - begun
        _await_idle(programs)

    cpu, growth = {}, {}
    for role, seconds in cpu_seconds(programs).items():
        cpu[role] = round(seconds - cpu_before.get(role, 0.0), 2)
    for role, size in peak.items():
        growth[role] = round((size - memory_before.get(role, 0.0)) / 2**20, 1)
    return Measured(
        status=statuses[0] if statuses else 0,
        answered_seconds=answered_seconds,
        cpu_seconds=cpu,
        growth_mib=growth,
        others=others,
    )


@contextmanager
def _peak_memory(programs: Sequence[Program]) -> Iterator[dict[str, float]]:
    """The most memory by role, sampled until the context ends."""
    peak = memory_bytes(programs)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_MEMORY_SECONDS):
            for role, size in memory_bytes(programs).items():
                peak[role] = max(peak.get(role, 0.0), size)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


def _send_small_requests(
    service: RunningService, key: str, going_on: Callable[[], bool]
) -> SmallRequests:
    """Send small requests one after the other, a few of them and then while `going_on()`."""
    requests = SmallRequests()
    deadline = time.monotonic() + _ANSWER_SECONDS
    while len(requests.seconds) < _LEAST_SMALL_REQUESTS or (
        going_on() and time.monotonic() < deadline
    ):
        body = {"query": secrets.token_hex(4), "documents": ["one", "two"], "cache": "bypass"}
        start = time.monotonic()
        status = _send(service.url, key, json.dumps(body).encode())
        requests.seconds.append(time.monotonic() - start)
        if status != http.client.OK:
            requests.refused += 1
    return requests


def _await_idle(programs: Sequence[Program]) -> None:
    """Wait until the programs use next to no processor time."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = sum(cpu_seconds(programs).values())
        time.sleep(_IDLE_SECONDS)
        if sum(cpu_seconds(programs).values()) - before < _IDLE_SHARE * _IDLE_SECONDS:
            return


def _send(url: str, key: str, body: bytes) -> int:
    """The status of an answer; 0 where the connection was broken off."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_ANSWER_SECONDS)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        connection.request("POST", "/rerank", body, headers)
        response = connection.getresponse()
        response.read()
    except (http.client.HTTPException, OSError):
        return 0
    finally:
        connection.close()
    return response.status
