"""The parts of a worker's start, from the times of its log's lines.

Depends on the fixed texts of the log, not on a running worker. Invariant: the parts are those
between lines that the log has, in order, and their sum is the time from the process's start to
ready.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

LOADING, GOLDEN = "weights", "golden pairs"
STAGES = {
    "starting": "interpreter and settings",
    "reading and checking the model's files": "libraries",
    "loading the model": "hashing and checks",
    "scoring golden pairs": LOADING,
    "ready": GOLDEN,
}
"""The part that ends with a line of the log, by its message."""


def parts(log: str, begin: float) -> dict[str, float]:
    """Seconds of each part of a start; `begin` is the time at which the process was started, in
    seconds since 1970.

    Without golden pairs there is no line before them, and the part of the weights ends with ready.
    """
    found: dict[str, float] = {}
    last = begin
    times = _times(log)
    for message, part in STAGES.items():
        if message not in times:
            continue
        name = part
        if message == "ready" and "scoring golden pairs" not in times:
            name = LOADING
        found[name] = times[message] - last
        last = times[message]
    return found


def _times(log: str) -> Mapping[str, float]:
    """The time of the first line with each message, in seconds since 1970."""
    times: dict[str, float] = {}
    for line in log.splitlines():
        entry = _entry(line)
        message = entry.get("message")
        if isinstance(message, str) and message in STAGES:
            moment = datetime.fromisoformat(str(entry["time"])).timestamp()
            times.setdefault(message, moment)
    return times


def _entry(line: str) -> Mapping[str, object]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
