"""More idle connections than the limit of open files: other clients are served, and the log
stays short."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.processes import Gmr
from tests.promises.limited_gateway import limited_gateway
from tests.promises.raw_http import dial

pytestmark = pytest.mark.slow

FILES = 256
IDLE = 600
HALF = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    log = tmp_path_factory.mktemp("files") / "log"
    with limited_gateway(
        log, {resource.RLIMIT_NOFILE: FILES}, RERANK_READ_TIMEOUT_SECONDS="30"
    ) as process:
        yield process


def test_the_limit_of_connections_is_that_of_files_and_is_said(served: Gmr) -> None:
    assert "fewer connections than RERANK_MAX_CONNECTIONS" in served.said()
    assert 32 <= served.metric("rerank_connections_limit") <= FILES - 64


@pytest.mark.parametrize("said", [b"", HALF], ids=["silent", "half a request"])
def test_connections_that_do_nothing_keep_nobody_out(served: Gmr, said: bytes) -> None:
    """Idle connections are evicted for others; over the limit of busy ones, health is answered."""
    lines = len(served.said().splitlines())
    with ExitStack() as stack:
        for _ in range(IDLE):
            connection = stack.enter_context(dial(served.url))
            connection.send(said) if said else None
        for _ in range(3):
            assert served.status("/health/live") == served.status("/health/ready") == 200
        if not said:
            assert served.rerank(query="q", documents=["d"]).status_code == 200
        assert len(os.listdir(f"/proc/{served.pid}/fd")) < FILES
    assert served.rerank(query="q", documents=["d"]).status_code == 200
    assert len(served.said().splitlines()) < lines + 20


def test_a_client_that_was_answered_and_does_nothing_gives_way_and_one_at_work_does_not(
    served: Gmr,
) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(dial(served.url))
        busy.sendall(HALF)
        served.status("/health/live")
        for _ in range(IDLE):
            stack.enter_context(dial(served.url))
        assert served.status("/health/live") == 200
        busy.sendall(b"connection: close\r\n\r\n")
        assert busy.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_when_files_run_out_for_another_reason_that_is_said_once(served: Gmr) -> None:
    """The limit is lowered under the running process, below what it has open."""
    opened = len(os.listdir(f"/proc/{served.pid}/fd"))
    resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (opened, FILES))
    try:
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(dial(served.url))
            with suppress(httpx.TransportError):
                httpx.get(f"{served.url}/health/live", timeout=2)
    finally:
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    assert served.rerank(query="q", documents=["d"]).status_code == 200
    assert served.said().count("no file left") == 1
    assert "Traceback" not in served.said()
