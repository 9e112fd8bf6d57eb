"""The load during a fault: callers that send one request after the other, or requests at a rate.

Depends on the public API alone. Invariant: every request that was begun is in the record with its
outcome, and requests mix pairs that were sent before with pairs that were not.
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
"""A caller's own timeout, longer than the request's, so that a missing answer is noticed."""
NO_ANSWER = 0
HOT_TEXTS = 64
"""Texts that are sent again and again, with `HOT_QUERIES`: half of a request's documents are of
these."""
HOT_QUERIES = 4
TURNED_AWAY = (429, 503)

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: its status (`NO_ANSWER`: none came), the seconds until its answer, and the logit
    of each scored pair."""

    status: int
    seconds: float
    logits: dict[Pair, float] = field(default_factory=dict)
    retry_after: bool = False


class Traffic:
    """Makes requests, each one different."""

    def __init__(self, tokenizer: LiteralTokenizer, documents: int, seed: int) -> None:
        self._documents = documents
        self._hot_texts = _texts(make_request("L", HOT_TEXTS, 0, tokenizer).documents)
        self._queries: list[str] = []
        for number in range(HOT_QUERIES):
            self._queries += _texts([make_request("T", 1, number, tokenizer).query])
        self._rng, self._lock, self._numbers = Random(seed), threading.Lock(), count(seed * 10**6)

    def body(self) -> dict[str, Any]:
        """The next request. May be called from several threads."""
        with self._lock:
            documents = self._rng.sample(self._hot_texts, self._documents // 2)
            while len(documents) < self._documents:
                documents.append(f"{self._rng.choice(self._hot_texts)} {next(self._numbers)}")
            return {
                "query": self._rng.choice(self._queries),
                "documents": documents,
                "timeout_ms": TIMEOUT_MS,
            }


def send(url: str, body: dict[str, Any]) -> Outcome:
    """Send one request over a connection of its own."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=GIVE_UP_SECONDS)
    try:
        connection.request(
            "POST", "/rerank", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        content = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return Outcome(NO_ANSWER, time.perf_counter() - start)
    finally:
        connection.close()

    seconds = time.perf_counter() - start
    if response.status != http.client.OK:
        retry_after = response.getheader("retry-after") is not None
        return Outcome(response.status, seconds, retry_after=retry_after)

    logits: dict[Pair, float] = {}
    for result in content["results"]:
        logits[body["query"], body["documents"][result["index"]]] = result["logit"]
    return Outcome(http.client.OK, seconds, logits)


def closed_loop(
    url: str,
    traffic: Traffic,
    callers: int,
    requests: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Send `requests` requests from `callers` callers, each of which waits for its answer.

    After each answer, `on_progress` gets the number of answers so far, from one caller at a time.
    """
    outcomes: list[Outcome] = []
    numbers, lock = iter(range(requests)), threading.Lock()

    def caller() -> None:
        while True:
            with lock:
                if next(numbers, None) is None:
                    return
            outcomes.append(send(url, traffic.body()))
            if on_progress:
                with lock:
                    on_progress(len(outcomes))

    with ThreadPoolExecutor(callers) as pool:
        running = [pool.submit(caller) for _ in range(callers)]
    for future in running:
        future.result()
    return outcomes


def open_loop(url: str, traffic: Traffic, rate: float, seconds: float) -> list[Outcome]:
    """Send `rate` requests a second for some seconds, whether or not they are answered, and wait
    for all answers."""
    bodies = [traffic.body() for _ in range(int(rate * seconds))]
    start = time.perf_counter()
    sent = []
    with ThreadPoolExecutor(len(bodies)) as pool:
        for number, body in enumerate(bodies):
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            sent.append(pool.submit(send, url, body))
    return [future.result() for future in sent]


def wrong_answers(url: str, outcomes: Sequence[Outcome], most: int, tolerance: float) -> int:
    """The number of answers, of at most `most`, with a logit that differs from that of an
    undisturbed service without its cache."""
    scored = [outcome for outcome in outcomes if outcome.logits]
    wrong = 0
    for outcome in scored[:: max(1, len(scored) // most)]:
        body = {
            "query": next(iter(outcome.logits))[0],
            "documents": [text for _, text in outcome.logits],
            "cache": "bypass",
            "timeout_ms": TIMEOUT_MS,
        }
        if not _agree(outcome.logits, send(url, body).logits, tolerance):
            wrong += 1
    return wrong


def succeeded(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that were answered with scores."""
    return [outcome for outcome in outcomes if outcome.status == http.client.OK]


def _texts(parts: Iterable[object]) -> list[str]:
    return [part for part in parts if isinstance(part, str)]


def _agree(logits: dict[Pair, float], others: dict[Pair, float], tolerance: float) -> bool:
    if logits.keys() != others.keys():
        return False
    return all(abs(logit - others[pair]) <= tolerance for pair, logit in logits.items())
