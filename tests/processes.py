"""Real processes on loopback for tests that harm them: `gmr` commands and redis-server, on free
ports, ended by their pids."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from tests.conftest import CALM, START_SECONDS, free_port

STOP_SECONDS = 60
_POLL_SECONDS = 0.05


def eventually(
    holds: Callable[[], object], *, why: Callable[[], str] = str, seconds: float = START_SECONDS
) -> None:
    """Wait until `holds()` is true; fail where it never is, with the text of `why`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(_POLL_SECONDS)


class Process:
    """One program that can be ended, killed, paused and started again, on the same port. Use as a
    context."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._command = list(command)
        self._folder = folder
        self.log = log
        self._environment = os.environ | (environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._running().pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.signal(signal.SIGKILL)
        self._running().wait(STOP_SECONDS)

    def wait(self) -> int:
        """Wait until it has ended by itself; returns its exit code."""
        return self._running().wait(STOP_SECONDS)

    def end(self) -> int:
        """Send SIGTERM, wait, and return the exit code; a process that does not end is killed."""
        process = self._running()
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(STOP_SECONDS)

    def said(self) -> str:
        """Its output so far, standard error included."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process, "it was never started"
        return self._process


class Gmr(Process):
    """`gmr COMMAND`, one that serves HTTP; `client` talks to it. `interpreter` runs it, given
    Python's arguments."""

    def __init__(
        self,
        *arguments: str,
        log: Path,
        interpreter: Sequence[str] = (sys.executable,),
        **environment: str,
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(
            [*interpreter, "-m", "service.cli", *arguments, "--port", str(port)], log, environment
        )
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._probe = httpx.Client(
            base_url=self.url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._probe.close()
        self.end()

    def ready(self) -> bool:
        """True if it reports ready; a failed assertion where it has ended instead."""
        assert self.running(), self.said()
        return self.status("/health/ready") == httpx.codes.OK

    def await_ready(self) -> Self:
        eventually(self.ready, why=self.said)
        return self

    def status(self, path: str) -> int | None:
        """The status of a path on a connection of its own, None where there is no answer.

        A kept connection may be closed by the server as idle while the request is on its way.
        """
        try:
            return self._probe.get(path).status_code
        except httpx.TransportError:
            return None

    def rerank(self, **body: Any) -> httpx.Response:
        """`POST /rerank` with the fields given."""
        return self.client.post("/rerank", json=body)

    def metric(self, name: str) -> float:
        """A sample's value, such as `rerank_shed_total{reason="queue_full"}`; 0 where it is not
        there."""
        found = re.search(
            rf"^{re.escape(name)} (\S+)$", self.client.get("/metrics").text, re.MULTILINE
        )
        return float(found[1]) if found else 0.0


class RedisServer(Process):
    """A redis-server without persistence; `command(...)` runs redis-cli."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        common = (
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--appendonly",
            "no",
        )
        super().__init__(["redis-server", *common, *options], folder / f"redis-{self.port}")

    def start(self) -> None:
        super().start()
        eventually(lambda: self.command("PING") == "PONG", why=self.said)

    def command(self, *words: str) -> str:
        """The output of redis-cli, without its last newline."""
        line = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(
            line, capture_output=True, text=True, timeout=STOP_SECONDS, check=False
        ).stdout.strip()


@dataclass(frozen=True, slots=True)
class Fleet:
    """A gateway and its workers."""

    gateway: Gmr
    workers: list[Gmr]


@contextmanager
def fleet(
    folder: Path, workers: int = 2, *, worker: dict[str, str] | None = None, **gateway: str
) -> Iterator[Fleet]:
    """Workers with gmr-tiny on one thread each, and a gateway in front of them; `gateway` and
    `worker` are settings."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                Gmr("worker", log=folder / f"worker-{number}", **CALM | (worker or {}))
            )
            for number in range(workers)
        ]
        urls = [gmr.url for gmr in started]
        front = stack.enter_context(
            Gmr("gateway", "--workers", ",".join(urls), log=folder / "gateway", **gateway)
        )
        for gmr in (*started, front):
            gmr.await_ready()
        eventually(lambda: all(url in front.said() for url in urls), why=front.said)
        yield Fleet(front, started)
