"""The refusal of a request for load, with the time after which it may be sent again.

Depends on a reason and an expected wait. Invariant: every refusal is counted by its reason.
"""

from __future__ import annotations

import math
import random

from service.errors import Overloaded
from service.observability.metrics import SHED

MAX_RETRY_AFTER = 30


def overloaded(reason: str, wait: float) -> Overloaded:
    """`Overloaded`, counted by its reason. Its `Retry-After` is about the expected wait (seconds),
    with jitter, so that clients do not retry all at once."""
    SHED.labels(reason).inc()
    jittered = random.uniform(1, 3) + min(wait, MAX_RETRY_AFTER) * random.uniform(0.5, 1.5)
    return Overloaded(retry_after=min(MAX_RETRY_AFTER, math.ceil(jittered)))
