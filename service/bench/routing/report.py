"""The results of `gmr bench --routing`, as rows and tables.

Depends on numbers, not on how they are measured. Invariant: a gain is the median of paired ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

WORKERS = 2
_QUERIES = {"T": "text", "Q": "image", "D": "new"}
"""The queries of a stream, by its letter."""


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One shape of request, whole and split over two workers: median seconds, and the median of the
    paired ratios."""

    query: str
    documents: int
    prefix_tokens: int
    suffix_tokens: int
    whole: float
    split: float
    gain: float

    @property
    def share_per_prefix(self) -> float:
        """A share's own tokens over the prefix: the gateway splits by this ratio."""
        return self.suffix_tokens / WORKERS / self.prefix_tokens

    @property
    def expected(self) -> float:
        """The gain if time depended on tokens alone."""
        total = self.prefix_tokens + self.suffix_tokens
        return total / (self.prefix_tokens + self.suffix_tokens / WORKERS)

    def as_json(self) -> dict[str, Any]:
        """The fields and the derived ratios."""
        derived = {"share_per_prefix": self.share_per_prefix, "expected": self.expected}
        return asdict(self) | derived


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream of pages under both routings: median seconds of a request, the share of prompt
    tokens that were reused, and the median of the paired ratios."""

    query: str
    callers: int
    affinity: float
    least_loaded: float
    gain: float
    affinity_reused: float
    least_loaded_reused: float


def split_table(rows: Sequence[SplitRow]) -> Table:
    """A line for each shape of request."""
    table = Table(title=f"One request, whole and split over {WORKERS} workers; median milliseconds")
    for heading in (
        "query",
        "documents",
        "prefix",
        "suffixes",
        "share / prefix",
        "whole",
        "split",
        "gain",
        "gain by tokens",
    ):
        table.add_column(heading, justify="right")

    for row in rows:
        table.add_row(
            row.query,
            str(row.documents),
            str(row.prefix_tokens),
            str(row.suffix_tokens),
            f"{row.share_per_prefix:.1f}",
            f"{row.whole * 1000:.0f}",
            f"{row.split * 1000:.0f}",
            f"{row.gain:.2f}x",
            f"{row.expected:.2f}x",
        )
    return table


def stream_table(rows: Sequence[StreamRow]) -> Table:
    """A line for each stream."""
    table = Table(
        title=(
            "Pages of documents of each query, shuffled, or new queries over recurring documents;"
            " median milliseconds a request; prompt tokens reused"
        )
    )
    for heading in ("query", "callers", "affinity", "reused", "least loaded", "reused", "gain"):
        table.add_column(heading, justify="right")

    for row in rows:
        table.add_row(
            _QUERIES[row.query],
            str(row.callers),
            f"{row.affinity * 1000:.0f}",
            f"{row.affinity_reused:.0%}",
            f"{row.least_loaded * 1000:.0f}",
            f"{row.least_loaded_reused:.0%}",
            f"{row.gain:.2f}x",
        )
    return table
