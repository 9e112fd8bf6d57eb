"""One sample of one contender: some callers at once, each with a request; how long it took, what it
cost, what came out.

Knows contenders and requests, not what is compared with what. Invariant: nothing is on the clock
but asking, and whatever else the machine was doing meanwhile is recorded with the sample.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from service.bench.comparison.contenders import Contender, pause, resume
from service.bench.programs import Program
from service.bench.workloads import Request

_IDLE = ("idle", "iowait")
_INSIDE_OTHERS = ("guest", "guest_nice")
"""Kinds of processor time that the system counts under another name as well."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds, bytes, tokens. `cpu` and `memory` are by role; `foreign_cores` is how busy others
    kept the machine meanwhile."""

    seconds: float
    latencies: list[float]
    logits: list[float]
    pairs: int
    cpu: dict[str, float]
    memory: dict[str, float]
    prompt_tokens: float | None
    computed_tokens: float | None
    foreign_cores: float


def take(contender: Contender, requests: Sequence[Request]) -> Sample:
    """Wake the contender, have every request asked at once, and put it to sleep again."""
    prepared = [contender.prepare(request) for request in requests]
    resume(contender)
    try:
        tokens = contender.tokens()
        used, others = cpu_seconds(contender.programs), _foreign_seconds(contender.programs)
        start = time.perf_counter()
        with ThreadPoolExecutor(len(prepared)) as callers:
            asked = list(callers.map(lambda each: _timed(contender, each), prepared))
        seconds = time.perf_counter() - start
        spent = cpu_seconds(contender.programs)
        foreign = _foreign_seconds(contender.programs) - others
        counted = contender.tokens()
    finally:
        pause(contender)
    return Sample(
        seconds=seconds,
        latencies=[latency for latency, _ in asked],
        logits=[logit for _, answers in asked for logit in contender.logits(answers)],
        pairs=sum(len(request.documents) for request in requests),
        cpu={role: seconds - used.get(role, 0.0) for role, seconds in spent.items()},
        memory=memory_bytes(contender.programs),
        prompt_tokens=counted.prompt - tokens.prompt if tokens and counted else None,
        computed_tokens=counted.computed - tokens.computed if tokens and counted else None,
        foreign_cores=max(foreign, 0.0) / seconds,
    )


def cpu_seconds(programs: Sequence[Program]) -> dict[str, float]:
    """Processor time used so far, by role."""
    return _together(program.cpu_seconds() for program in programs)


def memory_bytes(programs: Sequence[Program]) -> dict[str, float]:
    """Proportional set size, by role."""
    return _together(program.memory_bytes() for program in programs)


def idle_cores(contender: Contender, seconds: float) -> float:
    """How many cores a contender that is awake and has nothing to do keeps busy."""
    before = sum(cpu_seconds(contender.programs).values())
    time.sleep(seconds)
    return (sum(cpu_seconds(contender.programs).values()) - before) / seconds


def _timed(contender: Contender, prepared: Sequence[bytes]) -> tuple[float, list[bytes]]:
    start = time.perf_counter()
    answers = contender.ask(prepared)
    return time.perf_counter() - start, answers


def _together(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for part in parts:
        for role, amount in part.items():
            total[role] += amount
    return dict(total)


def _foreign_seconds(programs: Sequence[Program]) -> float:
    """Processor time that was used so far on this machine by anything but the programs and this
    process."""
    spent = psutil.cpu_times()._asdict()
    busy = sum(seconds for kind, seconds in spent.items() if kind not in (*_IDLE, *_INSIDE_OTHERS))
    return float(busy - sum(cpu_seconds(programs).values()) - sum(os.times()[:2]))
