"""Fixtures of all tests: the shipped checkpoint, and a real server that serves it."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from model_store.checkpoint import SHIPPED

# no test depends on the time that an example takes
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ("tests.rooms",)

TINY = SHIPPED / "gmr-tiny"
START_SECONDS = 300
# processes under test end at once when a test is done with them
os.environ.setdefault("RERANK_DRAIN_SECONDS", "0")
CALM = {"RERANK_THREADS": "1", "RERANK_DEVICE": "cpu"}
"""One thread, so that a server under test leaves a core to the test, and the same scores on every
machine."""


def pytest_configure() -> None:
    """End a run that is told to end as Ctrl-C ends it: with what its fixtures have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect no garbage among modules and tests: they are a million objects, and all are kept."""
    gc.freeze()
    gc.enable()


def free_port() -> int:
    """A port where nothing listens, outside of the range of outgoing connections.

    With a port of that range, a client of a killed server could be given the server's own port, and
    connect to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(*arguments: str, port: int, log: Path, **environment: str) -> Iterator[str]:
    """`gmr ARGUMENTS --port PORT` as a process of its own, stopped by its pid; yields its URL once
    it is ready."""
    with started(*arguments, port=port, log=log, python=sys.executable, **environment) as (url, _):
        yield url


@contextmanager
def started(
    *arguments: str, port: int, log: Path, python: str, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `running`, by a given interpreter; yields the process, too."""
    command = [python, "-m", "service.cli", *arguments, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url) as client:
            _await_ready(client, process, f"gmr {arguments}", log)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _await_ready(
    client: httpx.Client, process: subprocess.Popen[bytes], name: str, log: Path
) -> None:
    """Ask by one client, whose making takes a hundred times as long as a question."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{name} ended with {process.returncode}:\n{log.read_text()}")
        with suppress(httpx.HTTPError):
            if client.get("/health/ready").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)

    raise AssertionError(f"{name} did not become ready:\n{log.read_text()}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of `gmr serve` with gmr-tiny."""
    with running(
        "serve", port=free_port(), log=tmp_path_factory.mktemp("serve") / "log", **CALM
    ) as url:
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


Rerank = Callable[..., httpx.Response]


@pytest.fixture(scope="session")
def rerank(client: httpx.Client) -> Rerank:
    """`POST /rerank` with the fields given as keyword arguments."""
    return lambda **body: client.post("/rerank", json=body)
