"""Requests at random times, whatever becomes of those before, and a stream that never ends.

Depends on HTTP and bodies, not on what they ask for. Invariant: a request's time counts from the
moment at which it was to be sent, so that a slow answer does not hide the wait of the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from random import Random

from service.bench.calls import post

STREAM_PATH = "/v1/rerank/stream"
_LINES_A_CALL = 16
_CALLS_AT_ONCE = 3
_CALLERS = 64


def timed_requests(
    url: str, bodies: Sequence[bytes], rate: float, seconds: float, seed: int
) -> list[float]:
    """Send requests at `rate` a second on average, with exponential gaps; returns the seconds until
    each answer."""
    dice = Random(seed)
    began = time.perf_counter()

    def send(body: bytes, due: float) -> float:
        post(url, "/rerank", body)
        return time.perf_counter() - due

    waiting = []
    due = began
    with ThreadPoolExecutor(_CALLERS) as pool:
        for body in cycle(bodies):
            due += dice.expovariate(rate)
            if due > began + seconds:
                break
            time.sleep(max(0.0, due - time.perf_counter()))
            waiting.append(pool.submit(send, body, due))
    return [each.result() for each in waiting]


@contextmanager
def endless_stream(url: str, bodies: Sequence[bytes]) -> Iterator[None]:
    """Lines without a pause, while the context lasts."""
    stop = threading.Event()

    def work(first: int) -> None:
        lines = cycle([*bodies[first:], *bodies[:first]])
        while not stop.is_set():
            batch = b"\n".join(next(lines) for _ in range(_LINES_A_CALL))
            post(url, STREAM_PATH, batch, "application/x-ndjson")

    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        calls = [
            pool.submit(work, number * len(bodies) // _CALLS_AT_ONCE)
            for number in range(_CALLS_AT_ONCE)
        ]
        try:
            yield
        finally:
            stop.set()
    for call in calls:
        call.result()
