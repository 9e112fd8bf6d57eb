"""How many CPU cores this process may keep busy: those it is bound to, and no more than its
container's quota.

In a container `os.cpu_count()` gives the whole machine's, and so many processes or threads starve
each other.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""What cgroup v2 says of the container itself: microseconds of CPU, or `max`, in a period of so
many."""


def cores(quota: Path = QUOTA) -> int:
    """At least 1; a part of a core counts as one."""
    bound = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        used, period = map(int, quota.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no container, or one that may use what there is
        return bound
    return max(1, min(bound, math.ceil(used / period)))
