"""A body within the limits, of the most expensive shapes, exhausts neither the gateway's memory nor
its health.

The memory limit is that of the chart for a gateway, applied to the process's address space, which
is stricter than a container's.
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
from tests.promises.raw_http import dial, read_to_end
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


@pytest.mark.parametrize(
    "shape", ["many names", "many parts", "unknown fields", "wide documents", "escaped documents"]
)
def test_the_dearest_bodies_within_the_limits_are_answered(limited: Gmr, shape: str) -> None:
    assert post(limited, SHAPES[shape]()) == 200


def test_several_at_once_fit_too_and_health_is_answered_meanwhile(limited: Gmr) -> None:
    """Bodies that do not fit beside others are turned away."""
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
    assert set(healthy) == {200}
    assert len(healthy) > len(statuses), "more than once a body, however slow the machine"


def test_an_answer_is_held_until_its_client_has_taken_it(limited: Gmr) -> None:
    """The memory budget of other bodies is smaller meanwhile."""
    text = b"a b " * 10_000
    body = (
        b'{"query":"q","return_documents":true,"documents":['
        + b",".join([b'"' + text + b'"'] * 250)
        + b"]}"
    )
    head = (
        b"POST /rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type:"
        b" application/json\r\n"
    )
    with dial(limited.url, receive_buffer=65_536) as connection:
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
        held = limited.metric("rerank_request_bodies_bytes")
        assert len(body) / 2 < held < 1.1 * len(body)
        rest = read_to_end(connection)
        assert len(rest) > len(body)
    eventually(lambda: limited.metric("rerank_request_bodies_bytes") == 0, why=limited.said)


def test_a_compressed_bomb_is_refused(limited: Gmr) -> None:
    assert {
        name: post(limited, bomb, **{"content-encoding": "gzip"}) for name, bomb in bombs().items()
    } == {
        "spaces": 400,
        "twice": 400,
    }


def test_a_process_that_is_told_to_end_while_it_reads_the_dearest_bodies_ends(
    tmp_path: Path,
) -> None:
    """It exits with 0 by itself, within a few grace periods; a parser that held the interpreter
    took a hundred."""
    grace = 5.0
    with limited_gateway(tmp_path / "log", LIMITS, RERANK_GRACE_SECONDS=str(grace)) as process:
        bodies = [
            SHAPES[name]()
            for name in ("nested lists", "escaped documents", "wide documents", "many parts")
        ]
        with ThreadPoolExecutor(len(bodies)) as threads:
            sent = [threads.submit(_post_until_gone, process, body) for body in bodies]
            eventually(
                lambda: process.metric("rerank_request_bodies_bytes") > 2**20, why=process.said
            )
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
