"""The results of `gmr bench --priority`, as rows and a table.

Depends on numbers, not on how they are measured. Invariant: a ratio is that of two quantiles of
equal traffic, in one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

TARGET = 1.3
"""The largest ratio of p99 that the service promises."""


@dataclass(frozen=True, slots=True)
class PriorityRow:
    """Requests at a share of the service's rate, alone and beside a stream: quantiles in seconds,
    and the pairs of the stream per second, beside them and alone."""

    workload: str
    load: float
    requests: int
    calm_p50: float
    calm_p99: float
    beside_p50: float
    beside_p99: float
    stream_pairs: float
    stream_alone_pairs: float

    @property
    def p99_ratio(self) -> float:
        return self.beside_p99 / self.calm_p99

    @property
    def stream_share(self) -> float:
        """The stream's throughput, as a part of what it has alone."""
        return self.stream_pairs / self.stream_alone_pairs

    def as_json(self) -> dict[str, Any]:
        """The fields and the derived ratios."""
        return asdict(self) | {"p99_ratio": self.p99_ratio, "stream_share": self.stream_share}


def priority_table(rows: Sequence[PriorityRow]) -> Table:
    """A row for each workload and load."""
    table = Table(title="requests alone and beside a stream")
    for column in ("workload", "load", "requests", "p50, ms", "p99, ms", "ratio of p99"):
        table.add_column(column, justify="right")
    table.add_column("stream, pairs/s", justify="right")
    table.add_column("of it alone", justify="right")
    for row in rows:
        table.add_row(
            row.workload,
            f"{row.load:.0%}",
            str(row.requests),
            f"{row.calm_p50 * 1000:.0f} / {row.beside_p50 * 1000:.0f}",
            f"{row.calm_p99 * 1000:.0f} / {row.beside_p99 * 1000:.0f}",
            f"{row.p99_ratio:.2f}",
            f"{row.stream_pairs:.0f}",
            f"{row.stream_share:.0%}",
        )
    return table
