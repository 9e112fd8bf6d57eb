"""The bounds of requests that wait for a worker while none is ready.

Depends on nothing, so that settings can be read before any metric exists. Invariant: every bound is
finite.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitBounds:
    """Each request waits up to `seconds`; 0: none waits. At most `max_requests` wait together, with
    `max_bytes` of bodies."""

    seconds: float
    max_requests: int
    max_bytes: int
