"""The load that faults are measured under: callers who ask one request after the other, or requests
that come at a rate.

Knows the public API alone. Invariant: every request that was begun is in the record with what
became of it, and what callers ask is a mix of pairs that were asked before and pairs that were not.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any
from urllib.parse import urlsplit

from model_store.families.tokens import LiteralTokenizer
from service.bench.workloads import make_request

TIMEOUT_MS = 20_000
GIVE_UP_SECONDS = 30
"""A caller waits longer than the request may take: an answer that never comes would be a finding.
"""
NO_ANSWER = 0
HOT_TEXTS = 64
"""Texts that are asked about again and again, with `HOT_QUERIES`; half of a request's documents are
of these."""
HOT_QUERIES = 4
TURNED_AWAY = (429, 503)

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its status (`NO_ANSWER`: none came), seconds until its answer, and the logit of
    each pair it scored."""

    status: int
    seconds: float
    logits: dict[Pair, float] = field(default_factory=dict)
    retry_after: bool = False


class Traffic:
    """Makes requests, each one different."""

    def __init__(self, tokenizer: LiteralTokenizer, documents: int, seed: int) -> None:
        self._tokenizer, self._documents = tokenizer, documents
        hot = make_request("L", HOT_TEXTS, 0, tokenizer)
        self._hot = [text for text in hot.documents if isinstance(text, str)]
        self._queries = [
            query
            for each in range(HOT_QUERIES)
            if isinstance(query := make_request("T", 1, each, tokenizer).query, str)
        ]
        self._rng, self._lock, self._numbers = Random(seed), threading.Lock(), count(seed * 10**6)

    def body(self) -> dict[str, Any]:
        with self._lock:
            known = self._rng.sample(self._hot, self._documents // 2)
            new = [
                f"{self._rng.choice(self._hot)} {next(self._numbers)}"
                for _ in range(self._documents - len(known))
            ]
            return {
                "query": self._rng.choice(self._queries),
                "documents": known + new,
                "timeout_ms": TIMEOUT_MS,
            }


def ask(url: str, body: dict[str, Any]) -> Asked:
    """One request over a connection of its own."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=GIVE_UP_SECONDS)
    try:
        connection.request(
            "POST", "/rerank", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        content = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return Asked(NO_ANSWER, time.perf_counter() - start)
    finally:
        connection.close()
    seconds = time.perf_counter() - start
    if response.status != http.client.OK:
        return Asked(
            response.status, seconds, retry_after=response.getheader("retry-after") is not None
        )
    texts = body["documents"]
    return Asked(
        http.client.OK,
        seconds,
        {(body["query"], texts[each["index"]]): each["logit"] for each in content["results"]},
    )


def closed_loop(
    url: str, traffic: Traffic, callers: int, requests: int, watch: Callable[[int], None]
) -> list[Asked]:
    """`callers` at a time until `requests` are answered; after each, `watch` is told how many are,
    by one caller at a time."""
    done: list[Asked] = []
    numbers, turn = iter(range(requests)), threading.Lock()

    def caller() -> None:
        while True:
            with turn:
                if next(numbers, None) is None:
                    return
            done.append(ask(url, traffic.body()))
            with turn:
                watch(len(done))

    with ThreadPoolExecutor(callers) as pool:
        for each in [pool.submit(caller) for _ in range(callers)]:
            each.result()
    return done


def open_loop(url: str, traffic: Traffic, rate: float, seconds: float) -> list[Asked]:
    """`rate` requests a second, whatever becomes of them, for so many seconds; then all their
    answers."""
    bodies = [traffic.body() for _ in range(int(rate * seconds))]
    start = time.perf_counter()
    with ThreadPoolExecutor(len(bodies)) as pool:
        asked = []
        for number, body in enumerate(bodies):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            asked.append(pool.submit(ask, url, body))
        return [each.result() for each in asked]


def wrong(url: str, asked: Sequence[Asked], most: int, tolerance: float) -> int:
    """Of at most `most` answers, how many have a logit that differs from what a calm service says
    past its cache."""
    answered = [each for each in asked if each.logits]
    found = 0
    for each in answered[:: max(1, len(answered) // most)]:
        query = next(iter(each.logits))[0]
        texts = [text for _, text in each.logits]
        calm = ask(
            url, {"query": query, "documents": texts, "cache": "bypass", "timeout_ms": TIMEOUT_MS}
        )
        found += not _agree(each.logits, calm.logits, tolerance)
    return found


def succeeded(asked: Iterable[Asked]) -> list[Asked]:
    """Those that were answered with scores."""
    return [each for each in asked if each.status == http.client.OK]


def _agree(one: dict[Pair, float], other: dict[Pair, float], tolerance: float) -> bool:
    return one.keys() == other.keys() and all(
        abs(logit - other[pair]) <= tolerance for pair, logit in one.items()
    )
