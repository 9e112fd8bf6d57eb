"""The HTTP server of a process: uvicorn with draining, a bounded shutdown, and exit codes.

Depends on sockets and signals, not on what is served. After SIGTERM the process reports that it is
not ready, but serves requests for the drain period; then it closes its listener and finishes the
requests in flight, and cuts off those that take longer than the grace period. Ctrl-C skips the
drain, as does a process that was not ready; a second signal ends the process at once. Invariants: a
process that received a signal ends within its grace period, whatever hangs; a server that cannot
serve ends the process with a non-zero code.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.interpreter import end_now
from service.observability.logs import log
from service.observability.metric_types import sample_gauges
from service.observability.metrics import LOOP_LAG_SECONDS
from service.web.asgi import drain
from service.web.connection import HttpConnection
from service.web.connection_limit import (
    ACCEPTED_AT_ONCE,
    AcceptErrors,
    ConnectionTable,
    apply_connection_limit,
)
from service.web.settings import ServerSettings

_BACKLOG = 2_048
"""Connections that the operating system queues until they are accepted."""
_ALARM_SECONDS = 1.0
"""Seconds after the grace period at which the operating system ends a process that runs no Python
code any more."""
_TICK_SECONDS = 0.1
"""uvicorn's sleep between two ticks. The event loop's lag is how much longer it sleeps."""
_TICKS_A_SAMPLE = 50
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 128 + signal.SIGINT}
"""Exit codes by signal: SIGTERM is an end on request; shells expect 130 after Ctrl-C."""
_THREAD_SECONDS = 1.0
"""Seconds that the interpreter may wait for threads (such as one that loads a model) after the
server has stopped."""


class CannotListen(Exception):
    """An address or port that cannot be bound; the message is one sentence."""


class Server:
    """Serves an app until a signal arrives or `fail` is called.

    The constructor binds the port; connections are accepted when the app has started. Raises
    `CannotListen`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._host, self._port = host, port
        self._sockets = list(_bind(host, port))
        self._uvicorn: _Uvicorn | None = None
        self._failed = False

    def run(
        self, app: FastAPI, settings: ServerSettings, beat: Callable[[], None] | None = None
    ) -> int:
        """Serve the app, and return the process's exit code.

        `beat` is for one of several processes that serve on the port: it is called each time that
        the event loop runs. Such a process leaves it to its parent to end it at a second signal.
        The caller is expected to exit at once; the process is ended shortly afterwards anyway.
        Raises `CannotListen` if another process has begun to listen on the port meanwhile.
        """
        # uvicorn warns about each request that is not HTTP
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)

        table = ConnectionTable(apply_connection_limit(settings.max_connections))
        config = uvicorn.Config(
            app,
            host=self._host,
            port=self._port,
            # uvicorn would take uvloop where another package brings it, as vLLM does. uvloop tells
            # no handler that a connection could not be accepted, and saves 4 % of a gateway's CPU.
            loop="asyncio",
            http=partial(HttpConnection, settings=settings, table=table),  # type: ignore[arg-type]  # any callable that makes a protocol
            # one of several takes a connection at a time, so that idle ones take the next
            backlog=1 if beat else ACCEPTED_AT_ONCE,
            timeout_keep_alive=settings.keep_alive_seconds,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._uvicorn = _Uvicorn(config, app, settings, beat)
        try:
            self._uvicorn.run(self._sockets)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise CannotListen(_explain(error, self._host, self._port)) from None

        code = self._uvicorn.exit_code
        if self._failed or (code is None and not self._uvicorn.started):
            code = 1
        _exit_after(_THREAD_SECONDS, code or 0)
        return code or 0

    def stop_listening(self) -> None:
        """Close the sockets of a process that does not serve itself."""
        for each in self._sockets:
            each.close()

    def fail(self) -> None:
        """Stop serving and exit with a non-zero code: the app will never be ready."""
        self._failed = True
        if self._uvicorn:
            self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn's server with a drain period and a bounded shutdown.

    By itself uvicorn closes its listener at once, waits for requests without a limit, and ends the
    process by the signal.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        settings: ServerSettings,
        beat: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self.exit_code: int | None = None
        """The exit code, once a signal has arrived."""
        self._app = app
        self._settings = settings
        self._beat = beat
        self._drained_at = self._cut_off_at = float("inf")
        self._last_tick: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        await super().startup(sockets)

        # uvicorn's `backlog` is also the number of connections that asyncio accepts at once
        for server in self.servers:
            for listener in server.sockets:
                with socket.socket(fileno=os.dup(listener.fileno())) as same:
                    same.listen(_BACKLOG)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is threading.main_thread():
            for number in _EXIT_CODES:
                signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        received = signal.Signals(sig)
        if self.exit_code is not None:
            if self._beat is None:
                end_now(self.exit_code)
            return  # a terminal, or a service manager, tells each process, and the parent does too
        self.exit_code = _EXIT_CODES[received]
        _exit_after(self._settings.grace_seconds, self.exit_code)
        _set_alarm(self._settings.grace_seconds + _ALARM_SECONDS)

        was_ready = drain(self._app)
        drains = was_ready and received is signal.SIGTERM
        now = time.monotonic()
        self._drained_at = now + (self._settings.draining_seconds if drains else 0)
        self._cut_off_at = now + self._settings.grace_seconds - self._settings.closing_seconds
        drain_seconds = round(self._drained_at - now, 1)
        log("told to end", signal=received.name, drain_seconds=drain_seconds)

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if self._last_tick is not None:
            LOOP_LAG_SECONDS.observe(max(0.0, now - self._last_tick - _TICK_SECONDS))
        self._last_tick = now
        if self._beat:
            self._beat()
        if counter % _TICKS_A_SAMPLE == 0:
            sample_gauges()
        return await super().on_tick(counter) or time.monotonic() >= self._drained_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        left = min(self._cut_off_at - time.monotonic(), self._settings.grace_seconds)
        self.config.timeout_graceful_shutdown = max(left, 0)  # type: ignore[assignment]  # a float works too
        await super().shutdown(sockets)


def _bind(host: str, port: int) -> Iterator[socket.socket]:
    """A socket for each address of a host, bound but not listening; raises `CannotListen`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise CannotListen(f"The host {host} has no address to listen on.") from None

    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise CannotListen(_explain(error, host, port)) from None
        yield listener


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken: give another --port, or end what listens there."
    return f"Nothing can listen on port {port} of {host}: {os.strerror(error.errno or 0)}."


def _exit_after(seconds: float, code: int) -> None:
    """Exit after that time, whatever the main thread is doing."""
    timer = threading.Timer(seconds, end_now, (code,))
    timer.daemon = True
    timer.start()


def _set_alarm(seconds: float) -> None:
    """Let the operating system end the process after that time: a thread that holds the interpreter
    lock stops every timer that is written in Python."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
