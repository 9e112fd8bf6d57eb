"""One body within the limits, of the dearest shapes there are, costs the gateway neither its memory nor its health.

The limit of memory is the chart's for a gateway, on the process's address space: harder than a container's.
"""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.processes import Gmr, eventually
from tests.promises.limited_gateway import limited_gateway
from tests.promises.worst_bodies.shapes import SHAPES, bombs

pytestmark = pytest.mark.slow

MEMORY = 2**30
STACK = 2**20
"""Of a thread: by default, each takes 8 MiB of addresses that it never uses."""
AT_ONCE = 4
JSON = {"content-type": "application/json"}
LIMITS = {resource.RLIMIT_STACK: STACK, resource.RLIMIT_AS: MEMORY}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    with limited_gateway(tmp_path_factory.mktemp("worst") / "log", LIMITS) as process:
        yield process
        assert "MemoryError" not in process.said()
        assert "Traceback" not in process.said()


def post(process: Gmr, body: bytes, **headers: str) -> int:
    answer = httpx.post(f"{process.url}/rerank", content=body, headers=JSON | headers, timeout=600)
    assert answer.headers["x-request-id"]
    return answer.status_code


def test_the_limit_is_real(limited: Gmr) -> None:
    assert resource.prlimit(limited.pid, resource.RLIMIT_AS) == (MEMORY, MEMORY)


def test_each_of_the_dearest_bodies_fits_into_memory(limited: Gmr) -> None:
    statuses = {name: post(limited, shape()) for name, shape in SHAPES.items()}
    assert {name: status for name, status in statuses.items() if status not in (200, 400)} == {}
    assert {name for name, status in statuses.items() if status == 200} >= {
        "many names",
        "many parts",
        "unknown fields",
        "documents of 64 KiB",
        "wide documents",
        "escaped documents",
    }


def test_several_at_once_fit_too_and_health_is_answered_meanwhile(limited: Gmr) -> None:
    """What does not fit beside others is turned away."""
    done = threading.Event()
    healthy: list[int | None] = []

    def ask() -> None:
        while not done.is_set():
            healthy.append(limited.status("/health/live"))
            time.sleep(0.05)

    watcher = threading.Thread(target=ask)
    watcher.start()
    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            statuses = list(threads.map(lambda shape: post(limited, shape()), SHAPES.values()))
    finally:
        done.set()
        watcher.join()
    assert set(statuses) <= {200, 400, 503}
    assert statuses.count(200) >= 3
    assert set(healthy) == {200}
    assert len(healthy) > len(statuses), "more than once a body, however slow the machine"


def test_a_compressed_bomb_is_refused(limited: Gmr) -> None:
    assert {name: post(limited, bomb, **{"content-encoding": "gzip"}) for name, bomb in bombs().items()} == {
        "spaces": 400,
        "twice": 400,
    }


def test_a_process_that_is_told_to_end_while_it_reads_the_dearest_bodies_ends(tmp_path: Path) -> None:
    """With exit code 0, by its own: within a few of its graces, where a parse that held the interpreter took a hundred."""
    grace = 5.0
    with limited_gateway(tmp_path / "log", LIMITS, RERANK_GRACE_SECONDS=str(grace)) as process:
        bodies = [SHAPES[name]() for name in ("nested lists", "escaped documents", "wide documents", "many parts")]
        with ThreadPoolExecutor(len(bodies)) as threads:
            sent = [threads.submit(_post_until_gone, process, body) for body in bodies]
            eventually(lambda: process.metric("rerank_request_bodies_bytes") > 2**20, why=process.said)
            told = time.monotonic()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
            assert time.monotonic() - told < 3 * grace
            for each in sent:
                each.result()


def _post_until_gone(process: Gmr, body: bytes) -> None:
    while process.running():
        try:
            post(process, body)
        except (httpx.TransportError, KeyError):
            continue
