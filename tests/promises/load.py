"""Callers that send requests to a gateway without pause, and keep the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from tests.processes import Gmr, eventually

Body = dict[str, Any]


class Load:
    """The requests and answers so far, from several threads."""

    def __init__(self) -> None:
        self.answers: list[tuple[Body, httpx.Response]] = []
        self.over = threading.Event()

    def more(self, count: int, *, why: Callable[[], str] = str) -> None:
        """Wait for that many further answers."""
        wanted = len(self.answers) + count
        eventually(lambda: len(self.answers) >= wanted, why=why)

    def statuses(self) -> set[int]:
        return {answer.status_code for _, answer in self.answers}


@contextmanager
def load(gateway: Gmr, bodies: Sequence[Body], callers: int) -> Iterator[Load]:
    """A number of concurrent callers that send the bodies in rotation; a missing answer is a
    failure."""
    result = Load()

    def call(first: int) -> None:
        with httpx.Client(base_url=gateway.url, timeout=120) as client:
            number = first
            while not result.over.is_set():
                body = bodies[number % len(bodies)]
                result.answers.append((body, client.post("/rerank", json=body)))
                number += callers

    with ThreadPoolExecutor(callers) as threads:
        calling = [threads.submit(call, number) for number in range(callers)]
        try:
            yield result
        finally:
            result.over.set()
        for each in calling:
            each.result()


def logits(answer: httpx.Response) -> dict[int, float]:
    """The logit of each document of an answer."""
    assert answer.status_code == httpx.codes.OK, answer.text
    return {each["index"]: each["logit"] for each in answer.json()["results"]}
