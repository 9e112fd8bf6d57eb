"""A process that gets SIGTERM: not ready at once, still serving, then completing requests in
flight, and ended within its grace period."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.wire import MSGPACK, ScoreReply
from tests.conftest import CALM, TINY, free_port
from tests.processes import Gmr, Process, eventually
from tests.worker.calls import as_call

pytestmark = pytest.mark.slow

ENDLESS = {"RERANK_DRAIN_SECONDS": "3600", "RERANK_GRACE_SECONDS": "3600"}
"""Periods that no test outlives: what ends nevertheless does so for another reason."""
BRIEF = {"RERANK_DRAIN_SECONDS": "0.5", "RERANK_GRACE_SECONDS": "3600"}
IMPATIENT = {"RERANK_DRAIN_SECONDS": "0", "RERANK_GRACE_SECONDS": "1.5"}
CTRL_C = 130


def long_request(seed: str) -> dict[str, Any]:
    return {
        "query": f"a list {seed}",
        "documents": [f"{seed} {number} " * 60 for number in range(100)],
        "cache": "bypass",
    }


def short_request() -> dict[str, Any]:
    return {"query": "a list", "documents": ["sorted"], "cache": "bypass"}


@contextmanager
def in_flight(process: Gmr, **body: Any) -> Iterator[Future[httpx.Response]]:
    """A request in flight."""
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(httpx.post, f"{process.url}/rerank", json=body, timeout=120)
        eventually(lambda: process.metric("rerank_requests_in_flight") >= 1, why=process.said)
        yield answer


def is_unready(process: Gmr) -> bool:
    answer = httpx.get(f"{process.url}/health/ready")
    return (answer.status_code, answer.json().get("code")) == (503, "no_worker")


def test_while_it_drains_it_is_not_ready_and_serves(tmp_path: Path) -> None:
    """A second signal ends it at once."""
    with Gmr("serve", log=tmp_path / "log", **CALM | ENDLESS) as process:
        process.await_ready()
        # one that is kept open from here on
        assert "connection" not in process.rerank(**short_request()).headers
        process.signal(signal.SIGTERM)
        eventually(lambda: is_unready(process), why=process.said)
        for answer in (
            process.rerank(**short_request()),
            httpx.post(f"{process.url}/rerank", json=short_request()),
        ):
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
        assert process.status("/health/live") == 200
        assert process.running()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_what_is_in_flight_is_answered_before_it_ends(tmp_path: Path) -> None:
    with Gmr("serve", log=tmp_path / "log", **CALM | BRIEF) as process:
        process.await_ready()
        with in_flight(process, **long_request("drained")) as answer:
            process.signal(signal.SIGTERM)
            assert len(answer.result().json()["results"]) == 100
        assert process.wait() == 0
        assert process.status("/health/live") is None


def test_ctrl_c_does_not_drain_but_finishes_what_is_in_flight(tmp_path: Path) -> None:
    with Gmr("serve", log=tmp_path / "log", **CALM | ENDLESS) as process:
        process.await_ready()
        with in_flight(process, **long_request("interrupted")) as answer:
            process.signal(signal.SIGINT)
            assert answer.result().status_code == 200
        assert process.wait() == CTRL_C
        assert "Traceback" not in process.said()


@pytest.fixture
def waiting_gateway(tmp_path: Path) -> Iterator[tuple[Gmr, Gmr]]:
    """A gateway with a short grace period, and its worker."""
    with (
        Gmr("worker", log=tmp_path / "worker", **CALM | ENDLESS) as worker,
        Gmr("gateway", "--workers", worker.url, log=tmp_path / "gateway", **IMPATIENT) as gateway,
    ):
        worker.await_ready()
        gateway.await_ready()
        yield gateway, worker
        worker.kill()


def test_a_worker_that_drains_sends_gateways_elsewhere_and_scores_what_comes(
    waiting_gateway: tuple[Gmr, Gmr],
) -> None:
    gateway, worker = waiting_gateway
    worker.signal(signal.SIGTERM)
    eventually(lambda: is_unready(worker), why=worker.said)
    assert worker.status("/info") == 503
    call = msgspec.msgpack.encode(as_call("find", ("a list",), [("sorted",), ("not sorted",)]))
    answer = httpx.post(f"{worker.url}/score", content=call, headers={"content-type": MSGPACK})
    assert answer.headers["connection"] == "close"
    assert all(msgspec.msgpack.decode(answer.content, type=ScoreReply).pairs)
    eventually(lambda: is_unready(gateway), why=gateway.said)


def test_a_gateway_with_a_stuck_worker_is_gone_within_its_grace(
    waiting_gateway: tuple[Gmr, Gmr],
) -> None:
    """Requests that still wait get a 503 with `Retry-After`."""
    gateway, worker = waiting_gateway
    with in_flight(gateway, **long_request("stuck")) as answer:
        worker.pause()
        assert [gateway.status(path) for path in ("/health/live", "/metrics")] == [200, 200]
        gateway.signal(signal.SIGTERM)
        body = answer.result().json()
        assert (answer.result().status_code, body["code"]) == (503, "overloaded")
        assert body["message"] == "The service is shutting down."
        assert int(answer.result().headers["retry-after"]) >= 1
    assert gateway.wait() == 0
    assert "Traceback" not in gateway.said()


def test_a_worker_that_is_told_to_end_while_it_loads_ends(tmp_path: Path) -> None:
    """The weights are a pipe without a writer: loading takes forever, as from a file server that
    hangs."""
    stuck = shutil.copytree(TINY, tmp_path / "stuck")
    (stuck / "model.safetensors").unlink()
    os.mkfifo(stuck / "model.safetensors")
    with Gmr("worker", "--model", str(stuck), log=tmp_path / "log", **CALM | ENDLESS) as worker:
        eventually(lambda: worker.status("/health/live") == 200, why=worker.said)
        assert is_unready(worker)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


BLOCKED = """
import threading, time
from fastapi import FastAPI
from service.web.asgi import add_common_routes
from service.web.server import Server
from service.web.settings import ServerSettings
app = FastAPI()
add_common_routes(app, is_ready=lambda: True)

@app.get("/block")
async def block() -> None:
    print("blocked", flush=True)
    {block}

settings = ServerSettings(drain_seconds=0, grace_seconds=1)
raise SystemExit(Server("127.0.0.1", {port}).run(app, settings))
"""


@pytest.mark.parametrize(
    "block", ["time.sleep(3600)", "import anyio.to_thread as t; await t.run_sync(time.sleep, 3600)"]
)
def test_a_handler_that_never_returns_does_not_keep_the_process(tmp_path: Path, block: str) -> None:
    """Neither one that blocks the event loop, nor one that waits for a thread."""
    port = free_port()
    program = BLOCKED.format(block=block, port=port)
    with Process([sys.executable, "-c", program], tmp_path / "log") as process:
        gone = threading.Thread(
            target=_ask_until_gone, args=(process, f"http://127.0.0.1:{port}/block")
        )
        gone.start()
        eventually(lambda: "blocked" in process.said(), why=process.said)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        gone.join()


HOLDING = """
    import re, anyio.to_thread as t
    def hold():
        while not app.state.draining:
            time.sleep(0.01)
        re.match("(a+)+$", "a" * 64 + "b")
    await t.run_sync(hold)
"""


def test_a_thread_that_never_lets_go_of_the_interpreter_does_not_keep_the_process(
    tmp_path: Path,
) -> None:
    """No Python code runs any more, timers included: the operating system ends the process."""
    port = free_port()
    program = BLOCKED.format(block=HOLDING.strip(), port=port)
    with Process([sys.executable, "-c", program], tmp_path / "log") as process:
        gone = threading.Thread(
            target=_ask_until_gone, args=(process, f"http://127.0.0.1:{port}/block")
        )
        gone.start()
        eventually(lambda: "blocked" in process.said(), why=process.said)
        process.signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGALRM
        gone.join()


def _ask_until_gone(process: Process, url: str) -> None:
    while process.running():
        try:
            httpx.get(url, timeout=120)
        except httpx.TransportError:
            continue
