"""One sample of one contender: some callers at once, each with one request; the time, the cost and
the scores of it.

Does not depend on the other contenders. Invariant: only sending and waiting is timed, and the load
of other processes on the machine is recorded with the sample.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from service.bench.comparison.contenders import Contender, pause, resume
from service.bench.programs import Program, cpu_seconds, memory_bytes
from service.bench.workloads import Request

_NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")
"""Kinds of processor time that are no work, or that the system counts under another kind too."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds, bytes and tokens of one sample.

    `cpu` and `memory` are by role; `foreign_cores` is the number of cores that other processes of
    the machine kept busy meanwhile.
    """

    seconds: float
    latencies: list[float]
    logits: list[float]
    pairs: int
    cpu: dict[str, float]
    memory: dict[str, float]
    prompt_tokens: float | None
    computed_tokens: float | None
    foreign_cores: float


def take_sample(contender: Contender, requests: Sequence[Request]) -> Sample:
    """Resume the contender, send all requests at once, and pause it again."""
    prepared = [contender.prepare(request) for request in requests]
    resume(contender)
    try:
        tokens_before = contender.tokens()
        cpu_before = cpu_seconds(contender.programs)
        foreign_before = _foreign_seconds(contender.programs)

        start = time.perf_counter()
        with ThreadPoolExecutor(len(prepared)) as callers:
            timed = list(callers.map(lambda calls: _timed(contender, calls), prepared))
        seconds = time.perf_counter() - start

        cpu_after = cpu_seconds(contender.programs)
        foreign = _foreign_seconds(contender.programs) - foreign_before
        tokens = contender.tokens()
    finally:
        pause(contender)

    logits: list[float] = []
    for _, answers in timed:
        logits += contender.logits(answers)

    prompt_tokens = computed_tokens = None
    if tokens and tokens_before:
        prompt_tokens = tokens.prompt - tokens_before.prompt
        computed_tokens = tokens.computed - tokens_before.computed
    return Sample(
        seconds=seconds,
        latencies=[latency for latency, _ in timed],
        logits=logits,
        pairs=sum(len(request.documents) for request in requests),
        cpu={role: used - cpu_before.get(role, 0.0) for role, used in cpu_after.items()},
        memory=memory_bytes(contender.programs),
        prompt_tokens=prompt_tokens,
        computed_tokens=computed_tokens,
        foreign_cores=max(foreign, 0.0) / seconds,
    )


def idle_cores(contender: Contender, seconds: float) -> float:
    """The number of cores that a running contender without requests keeps busy."""
    before = sum(cpu_seconds(contender.programs).values())
    time.sleep(seconds)
    return (sum(cpu_seconds(contender.programs).values()) - before) / seconds


def _timed(contender: Contender, prepared: Sequence[bytes]) -> tuple[float, list[bytes]]:
    start = time.perf_counter()
    answers = contender.send(prepared)
    return time.perf_counter() - start, answers


def _foreign_seconds(programs: Sequence[Program]) -> float:
    """Processor time that the machine has spent on processes other than the programs and this
    one."""
    busy = 0.0
    for kind, seconds in psutil.cpu_times()._asdict().items():
        if kind not in _NOT_BUSY:
            busy += seconds
    return busy - sum(cpu_seconds(programs).values()) - sum(os.times()[:2])
