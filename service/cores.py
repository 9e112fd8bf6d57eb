"""The number of CPU cores that this process may keep busy.

It is bounded by the process's CPU affinity and by its container's quota. `os.cpu_count()` counts
the machine's cores, and as many processes or threads would starve each other in a container.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The container's quota in cgroup v2: microseconds of CPU (or `max`) in each period, and the
period's microseconds."""


def cores(quota: Path = QUOTA) -> int:
    """The number of cores, at least 1; a part of a core counts as one."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1

    try:
        used, period = map(int, quota.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no cgroup v2, or no quota
        return available
    return max(1, min(available, math.ceil(used / period)))
