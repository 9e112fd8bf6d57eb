"""A minute of the service under observation by a Prometheus: good and bad requests, overload, and
the loss of Redis and of a worker.

It tests dashboards and alerts; the service's behaviour is tested elsewhere.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from service.gateway.admission.keys import KeyEntry, change_keys, digest, new_key
from tests.gateway.cascades.published import cascade_folder, tiny_stages
from tests.observability.asked import CASCADE, GOOD, ODD
from tests.observability.prometheus import Prometheus
from tests.processes import Fleet, Gmr, RedisServer, eventually, fleet

_ODD_SHARE = 0.15
_CALM_SECONDS, _ACT_SECONDS = 15, 4


@contextmanager
def scene(folder: Path) -> Iterator[Prometheus]:
    """The Prometheus, after the last act was scraped; the gateway and one worker still run."""
    keys = folder / "keys.json"
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder))
        rooms = {
            "RERANK_CAPACITY_TOKENS": "4000",
            "RERANK_MAX_QUEUED_REQUESTS": "4",
            "RERANK_MAX_QUEUE_MS": "300",
        }
        store = {
            "RERANK_REDIS_URL": redis.url,
            "RERANK_CACHE_KEY_SECRET": "no more than a test",
            "RERANK_CACHE_MEMORY_BYTES": "65536",
        }
        doors = {"RERANK_API_KEYS_FILE": str(keys), "RERANK_METRICS_PUBLIC": "true"}
        key = new_key()
        change_keys(
            keys,
            lambda _: (KeyEntry(sha256=digest(key.encode()).hex(), name="scene"),),
            create=True,
        )
        cascades = cascade_folder(folder / "cascade", *tiny_stages(), name=CASCADE)
        compared = {"RERANK_CASCADES": str(cascades), "RERANK_CASCADE_COMPARE_SHARE": "1"}
        served = stack.enter_context(fleet(folder, **rooms, **store, **doors, **compared))
        targets = {
            "gateway": [_address(served.gateway.url)],
            "worker": [_address(each.url) for each in served.workers],
        }
        prometheus = stack.enter_context(Prometheus(folder, targets))
        _play(served, redis, key)
        time.sleep(3)  # its last scrapes
        yield prometheus


def _address(url: str) -> str:
    return url.removeprefix("http://")


def _play(served: Fleet, redis: RedisServer, key: str) -> None:
    """Run the acts. Each lasts long enough for a picture, and until its event is visible in the
    metrics, however slow the machine is."""
    gateway = served.gateway
    with _visitor(gateway.url, key) as visitor:
        for ask in (*GOOD, *ODD):
            ask(visitor, random.Random(0))
    with _callers(gateway.url, key, 2, pause=0.02):
        time.sleep(_CALM_SECONDS)
        with _callers(gateway.url, key, 12, pause=0):
            _act(gateway, 'rerank_shed_total{reason="expected_wait"}')
        redis.pause()
        _act(gateway, 'rerank_cache_skipped_total{operation="get",reason="circuit_open"}')
        redis.resume()
        served.workers[0].kill()
        _act(gateway, 'rerank_workers{state="unready"}')


def _act(gateway: Gmr, consequence: str) -> None:
    time.sleep(_ACT_SECONDS)
    eventually(lambda: gateway.metric(consequence) > 0, why=lambda: f"{consequence} stayed 0")


def _visitor(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {key}"})


@contextmanager
def _callers(url: str, key: str, count: int, *, pause: float) -> Iterator[None]:
    """A number of callers that send mixed requests."""
    over = threading.Event()

    def call(number: int) -> None:
        dice = random.Random(number)
        with _visitor(url, key) as client:
            while not over.is_set():
                dice.choice(ODD if dice.random() < _ODD_SHARE else GOOD)(client, dice)
                over.wait(pause)

    with ThreadPoolExecutor(count) as threads:
        calling = [threads.submit(call, number) for number in range(count)]
        try:
            yield
        finally:
            over.set()
        for each in calling:
            each.result()
