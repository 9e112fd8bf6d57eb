"""`gmr bench --worst-requests`: what the dearest requests within the limits cost, and what they do
to another tenant.

Each shape is sent once by one tenant to a service of its own, while another tenant asks small
things one after the other. The module knows HTTP and process trees, nothing of how a service works.
Invariant: CPU time is counted until nothing is done for the request any more, and every figure
stands beside the bound that it is held to.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.contenders import Service
from service.bench.comparison.measure import cpu_seconds, memory_bytes
from service.bench.comparison.report import quantile, write
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import cleaning_up
from service.bench.starting import start_service
from service.bench.worst_requests.connections import CONNECTIONS
from service.bench.worst_requests.shapes import DEADLINE_MS, SHAPES

MOST_GATEWAY_CPU = 10.0
"""CPU seconds of the gateway's own process, decoders apart, for one request."""
MOST_DECODER_CPU = 40.0
"""CPU seconds of its decoders: what a request's images may take, and a batch a child beyond."""
MOST_GROWTH_MIB = 640
"""How much more memory the gateway and its decoders may have at any time than before."""
MOST_DELAY_SECONDS = 5.0
"""The 95th percentile of another tenant's small requests beside it: as long as a request may wait
by default."""
_IDLE_SHARE = 0.1
_IDLE_SECONDS = 1.0
_SETTLE_SECONDS = 120.0
_SAMPLE_SECONDS = 0.1
_ANSWER_SECONDS = 180.0
_LEAST_BESIDE = 5
_PATH = "/rerank"


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
        console.print(_sentence(rows[-1]), soft_wrap=True)
    console.print(_table(rows))
    report = describe(plan) | {
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "deadline_ms": DEADLINE_MS,
    }
    report |= {"bounds": _bounds(), "rows": rows}
    if plan.output:
        write(report, plan.output)
    return 0 if all(row["held"] for row in rows) else 1


def chosen_shapes(names: str) -> list[str]:
    """The shapes named in a list with commas; none: all. Raises `BenchRefused` where there is no
    such shape."""
    known = [*(shape.name for shape in SHAPES), *CONNECTIONS]
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip())) or known
    for name in chosen:
        if name not in known:
            raise BenchRefused(f"There is no shape {name!r}: choose from {', '.join(known)}.")
    return chosen


@dataclass(slots=True)
class _Beside:
    """What another tenant sees meanwhile."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0


def _measure(name: str, plan: Plan, scratch: Path, stack: ExitStack) -> dict[str, Any]:
    """One shape against a service that has served nothing before but small requests."""
    keys = {tenant: secrets.token_hex(16) for tenant in ("loud", "quiet")}
    entries = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant}
        for tenant, key in keys.items()
    ]
    file = scratch / "keys.json"
    file.write_text(json.dumps({"keys": entries}), encoding="utf-8")
    settings = {"RERANK_API_KEYS_FILE": str(file), "RERANK_METRICS_PUBLIC": "true"}
    service = start_service(
        plan, make_checkpoint(plan, scratch), plan.engine, scratch, stack, **settings
    )
    shape = next((each for each in SHAPES if each.name == name), None)
    act: Callable[[], int]
    if shape:
        body = shape.body(plan.documents)
        act, says, size = lambda: _ask(service.url, keys["loud"], body), shape.says, len(body)
    else:
        holding = CONNECTIONS[name]
        act, says, size = (
            lambda: holding.hold(service.url, keys["loud"], plan.documents),
            holding.says,
            0,
        )
    alone = _beside(service, keys["quiet"], lambda: False)
    found = _beside_while(service, keys["quiet"], act)
    return _row(name, says, size, found) | {"alone_p95_s": quantile(alone.seconds, 0.95)}


def _beside_while(service: Service, key: str, act: Callable[[], int]) -> dict[str, Any]:
    """CPU time, memory and another tenant's delays while something is done, and until nothing of it
    is left."""
    programs = service.programs
    used, held = cpu_seconds(programs), memory_bytes(programs)
    status: list[int] = []
    acting = threading.Thread(target=lambda: status.append(act()))
    most: dict[str, float] = dict(held)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            for role, size in memory_bytes(programs).items():
                most[role] = max(most.get(role, 0.0), size)

    watching = threading.Thread(target=watch)
    watching.start()
    begun = time.monotonic()
    try:
        acting.start()
        beside = _beside(service, key, acting.is_alive)
        acting.join(_ANSWER_SECONDS)
        answered = time.monotonic() - begun
        _settle(programs)
    finally:
        over.set()
        watching.join()
    spent = cpu_seconds(programs)
    return {
        "status": status[0] if status else 0,
        "answered_s": answered,
        "cpu_s": {role: round(seconds - used.get(role, 0.0), 2) for role, seconds in spent.items()},
        "growth_mib": {
            role: round((size - held.get(role, 0.0)) / 2**20, 1) for role, size in most.items()
        },
        "others": beside,
    }


def _beside(service: Service, key: str, going_on: Callable[[], bool]) -> _Beside:
    """Small requests, one after the other, while something goes on, and some in any case."""
    beside = _Beside()
    until = time.monotonic() + _ANSWER_SECONDS
    while len(beside.seconds) < _LEAST_BESIDE or (going_on() and time.monotonic() < until):
        body = json.dumps(
            {"query": secrets.token_hex(4), "documents": ["one", "two"], "cache": "bypass"}
        ).encode()
        start = time.monotonic()
        status = _ask(service.url, key, body)
        beside.seconds.append(time.monotonic() - start)
        beside.refused += status != http.client.OK
    return beside


def _settle(programs: Sequence[Any]) -> None:
    """Wait until the programs do next to nothing."""
    until = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < until:
        before = sum(cpu_seconds(programs).values())
        time.sleep(_IDLE_SECONDS)
        if sum(cpu_seconds(programs).values()) - before < _IDLE_SHARE * _IDLE_SECONDS:
            return


def _ask(url: str, key: str, body: bytes) -> int:
    """The status of an answer; 0 where the connection was broken off."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_ANSWER_SECONDS)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        connection.request("POST", _PATH, body, headers)
        response = connection.getresponse()
        response.read()
    except (http.client.HTTPException, OSError):
        return 0
    finally:
        connection.close()
    return response.status


def _bounds() -> dict[str, float]:
    return {
        "gateway_cpu_s": MOST_GATEWAY_CPU,
        "decoders_cpu_s": MOST_DECODER_CPU,
        "gateway_growth_mib": MOST_GROWTH_MIB,
        "others_p95_s": MOST_DELAY_SECONDS,
        "others_refused": 0,
    }


def _row(name: str, says: str, size: int, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the report: figures by the names of their bounds, and whether all are held."""
    beside: _Beside = found["others"]
    cpu, growth = found["cpu_s"], found["growth_mib"]
    figures = {
        "gateway_cpu_s": cpu.get("gateway", 0.0),
        "decoders_cpu_s": cpu.get("decoders", 0.0),
        "gateway_growth_mib": round(growth.get("gateway", 0.0) + growth.get("decoders", 0.0), 1),
        "others_p95_s": round(quantile(beside.seconds, 0.95), 3),
        "others_refused": beside.refused,
    }
    row = {
        "shape": name,
        "says": says,
        "body_mib": round(size / 2**20, 2),
        "status": found["status"],
    }
    row |= {
        "answered_s": round(found["answered_s"], 2),
        "worker_cpu_s": cpu.get("worker", 0.0) + cpu.get("engine", 0.0),
    }
    row |= {
        "worker_growth_mib": growth.get("worker", 0.0),
        "others": len(beside.seconds),
        **figures,
    }
    broken = [each for each, bound in _bounds().items() if figures[each] > bound]
    return row | {"broken": broken, "held": not broken}


def _sentence(row: dict[str, Any]) -> str:
    held = "all bounds held" if row["held"] else f"not held: {', '.join(row['broken'])}"
    return f"{row['shape']}: {row['status']} after {row['answered_s']:.1f} s, {held}"


_HEADINGS = {
    "shape": "shape",
    "body_mib": "MiB",
    "status": "status",
    "answered_s": "answered s",
    "gateway_cpu_s": "gateway CPU s",
    "decoders_cpu_s": "decoders CPU s",
    "worker_cpu_s": "worker CPU s",
    "gateway_growth_mib": "gateway +MiB",
    "worker_growth_mib": "worker +MiB",
    "others_p95_s": "others p95 s",
    "others_refused": "refused",
}


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="The dearest legal request, by shape")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in _HEADINGS))
    table.caption = "\n".join(f"{row['shape']}: {row['says']}" for row in rows)
    return table
