"""The results of `gmr bench --worst-requests`: each figure beside its bound, and a table.

Depends on measurements, not on how they are taken. Invariant: a row holds its bounds only where
every figure does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from service.bench.results import quantile

BOUNDS = {
    "gateway_cpu_s": 10.0,
    "decoders_cpu_s": 40.0,
    "gateway_growth_mib": 640,
    "others_p95_s": 5.0,
    "others_refused": 0,
}
"""Upper bounds of one request's cost.

CPU seconds of the gateway's own process; CPU seconds of its decoders, which are those that a
request's images may use and one batch a decoder beyond; memory of the gateway and its decoders
above that of before; the 95th percentile of another tenant's small requests meanwhile, which is the
default time that a request may wait; and the number of them that were refused.
"""
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


@dataclass(slots=True)
class SmallRequests:
    """Another tenant's small requests: the seconds of each, and the number that was refused."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def p95(self) -> float:
        """The 95th percentile of the seconds."""
        return quantile(self.seconds, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The cost of one request: CPU seconds and growth in MiB by role, and the small requests
    meanwhile. A status of 0: no answer was waited for."""

    status: int
    answered_seconds: float
    cpu_seconds: dict[str, float]
    growth_mib: dict[str, float]
    others: SmallRequests


def row(name: str, description: str, body_bytes: int, measured: Measured) -> dict[str, Any]:
    """One row of the report: figures by the names of their bounds, and whether all are held."""
    cpu, growth = measured.cpu_seconds, measured.growth_mib
    gateway_growth = growth.get("gateway", 0.0) + growth.get("decoders", 0.0)
    figures = {
        "gateway_cpu_s": cpu.get("gateway", 0.0),
        "decoders_cpu_s": cpu.get("decoders", 0.0),
        "gateway_growth_mib": round(gateway_growth, 1),
        "others_p95_s": round(measured.others.p95(), 3),
        "others_refused": measured.others.refused,
    }

    broken = [name for name, bound in BOUNDS.items() if figures[name] > bound]
    return {
        "shape": name,
        "description": description,
        "body_mib": round(body_bytes / 2**20, 2),
        "status": measured.status,
        "answered_s": round(measured.answered_seconds, 2),
        "worker_cpu_s": cpu.get("worker", 0.0) + cpu.get("engine", 0.0),
        "worker_growth_mib": growth.get("worker", 0.0),
        "others": len(measured.others.seconds),
        **figures,
        "broken": broken,
        "held": not broken,
    }


def sentence(row: dict[str, Any]) -> str:
    """A row as one line."""
    held = "all bounds held" if row["held"] else f"not held: {', '.join(row['broken'])}"
    return f"{row['shape']}: {row['status']} after {row['answered_s']:.1f} s, {held}"


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """All rows, with a line on each shape below."""
    made = Table(title="The most expensive legal request, by shape")
    for heading in _HEADINGS.values():
        made.add_column(heading, justify="right")

    for row in rows:
        made.add_row(*(str(row[name]) for name in _HEADINGS))

    made.caption = "\n".join(f"{row['shape']}: {row['description']}" for row in rows)
    return made
