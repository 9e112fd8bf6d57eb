"""What `gmr bench --routing` found, as rows and tables.

Knows numbers, not how they are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

WORKERS = 2


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
        """A share's own tokens over the prefix: what the gateway decides by."""
        return self.suffix_tokens / WORKERS / self.prefix_tokens

    @property
    def expected(self) -> float:
        """The gain if time went by tokens alone."""
        total = self.prefix_tokens + self.suffix_tokens
        return total / (self.prefix_tokens + self.suffix_tokens / WORKERS)


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream of pages under both routings: median seconds of a request, prompt tokens reused, the
    median of paired ratios."""

    query: str
    callers: int
    affinity: float
    least_loaded: float
    gain: float
    affinity_reused: float
    least_loaded_reused: float


def split_table(rows: Sequence[SplitRow]) -> Table:
    """A line a shape of request."""
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
        times = (
            f"{row.whole * 1000:.0f}",
            f"{row.split * 1000:.0f}",
            f"{row.gain:.2f}x",
            f"{row.expected:.2f}x",
        )
        sizes = (
            str(row.documents),
            str(row.prefix_tokens),
            str(row.suffix_tokens),
            f"{row.share_per_prefix:.1f}",
        )
        table.add_row(row.query, *sizes, *times)
    return table


def stream_table(rows: Sequence[StreamRow]) -> Table:
    """A line a stream."""
    table = Table(
        title=(
            "Pages of documents of each query, shuffled; median milliseconds a request; prompt"
            " tokens reused"
        )
    )
    for heading in ("query", "callers", "affinity", "reused", "least loaded", "reused", "gain"):
        table.add_column(heading, justify="right")
    for row in rows:
        own = (f"{row.affinity * 1000:.0f}", f"{row.affinity_reused:.0%}")
        other = (f"{row.least_loaded * 1000:.0f}", f"{row.least_loaded_reused:.0%}")
        table.add_row(
            "image" if row.query == "Q" else "text",
            str(row.callers),
            *own,
            *other,
            f"{row.gain:.2f}x",
        )
    return table
