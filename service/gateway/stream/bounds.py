"""The bounds of one stream.

Holds numbers alone. Invariant: every wait and every buffer of a stream has a bound.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """The bounds of one stream; after SIGTERM, its lines have `drain_seconds` to be answered."""

    line_bytes: int
    lines_at_once: int
    idle_seconds: float
    drain_seconds: float
