"""A process's one server: uvicorn, as both apps run it, from its first request to its last.

Knows sockets, signals and exit codes; nothing of what is served. Told to end by SIGTERM, the
process is not ready any more but serves through the drain period, then closes its listener and
finishes what is in flight; what takes longer than the grace is cut off. Ctrl-C skips the drain, as
does a process that was not ready anyway; a second signal skips everything. Invariants: a process
that was told to end has ended within its grace, whatever hangs; a server that cannot serve ends the
process with a non-zero code.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.observability.logs import log
from service.observability.metrics import LOOP_LAG_SECONDS
from service.web.asgi import drain
from service.web.connection import Http
from service.web.connection_limit import ACCEPTED_AT_ONCE, AcceptErrors, ConnectionTable, tell_limit
from service.web.settings import ServerSettings

_BACKLOG = 2_048
"""Connections that the system keeps for us until they are accepted."""
_LATE_SECONDS = 1.0
"""How long after the grace the system ends a process in which no Python runs any more."""
_TICK_SECONDS = 0.1
"""How long uvicorn sleeps between two ticks; as much as it sleeps longer, the event loop was late.
"""
_CODES = {signal.SIGTERM: 0, signal.SIGINT: 128 + signal.SIGINT}
"""Exit codes by the signal that was obeyed: an end on request is no failure; a shell expects 130 of
Ctrl-C."""
_FAREWELL_SECONDS = 1.0
"""How long the interpreter may wait for threads (a model that is still loading) when there is
nothing left to serve."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class CannotListen(Exception):
    """An address or port that this process cannot have; its text is one sentence."""


class Server:
    """Serves an app until a signal comes or `give_up` is called.

    It has its port from the beginning and listens when the app starts. Raises `CannotListen`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._host, self._port = host, port
        self._sockets = list(_bound(host, port))
        self._uvicorn: _Uvicorn | None = None
        self._failed = False

    def run(self, app: FastAPI, serving: ServerSettings) -> int:
        """Serve; gives the process's exit code. The process is to end at once, and is made to where
        it does not.

        Raises `CannotListen` where another process has begun to listen on the port meanwhile.
        """
        # it warns at each request that is no HTTP
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        table = ConnectionTable(tell_limit(serving.max_connections))
        config = uvicorn.Config(
            app,
            host=self._host,
            port=self._port,
            http=partial(Http, serving=serving, table=table),  # type: ignore[arg-type]  # any callable that makes a protocol
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=serving.keep_alive_seconds,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._uvicorn = _Uvicorn(config, app, serving)
        try:
            self._uvicorn.run(self._sockets)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise CannotListen(_refusal(error, self._host, self._port)) from None
        code = self._uvicorn.code
        if self._failed or (code is None and not self._uvicorn.started):
            code = 1
        _end_after(_FAREWELL_SECONDS, code or 0)
        return code or 0

    def give_up(self) -> None:
        """End: what is served will never be ready."""
        self._failed = True
        if self._uvicorn:
            self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn, which by itself closes its listener at a signal at once, waits for ever, and dies of
    the signal in the end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, serving: ServerSettings) -> None:
        super().__init__(config)
        self.code: int | None = None
        """The exit code, once a signal has come."""
        self._app = app
        self._serving = serving
        self._leave_at = self._cut_at = float("inf")
        self._looked: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                with socket.socket(fileno=os.dup(listener.fileno())) as same:
                    # uvicorn's number is that of connections accepted at once, too
                    same.listen(_BACKLOG)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is threading.main_thread():
            for sign in _CODES:
                signal.signal(sign, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        sign = signal.Signals(sig)
        if self.code is not None:
            _end_now(self.code)
        self.code = _CODES[sign]
        _end_after(self._serving.grace_seconds, self.code)
        _end_at_the_latest(self._serving.grace_seconds + _LATE_SECONDS)
        expected = drain(self._app)
        now = time.monotonic()
        self._leave_at = now + (
            self._serving.draining_seconds if expected and sign is signal.SIGTERM else 0
        )
        self._cut_at = now + self._serving.grace_seconds - self._serving.leaving_seconds
        log("told to end", signal=sign.name, drain_seconds=round(self._leave_at - now, 1))

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if self._looked is not None:
            LOOP_LAG_SECONDS.observe(max(0.0, now - self._looked - _TICK_SECONDS))
        self._looked = now
        return await super().on_tick(counter) or time.monotonic() >= self._leave_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        left = min(self._cut_at - time.monotonic(), self._serving.grace_seconds)
        self.config.timeout_graceful_shutdown = max(left, 0)  # type: ignore[assignment]  # any number will do
        await super().shutdown(sockets)


def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket for each address of a host, bound but not listening; raises `CannotListen`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise CannotListen(f"The host {host} has no address to listen on.") from None
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise CannotListen(_refusal(error, host, port)) from None
        yield listener


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken: give another --port, or end what listens there."
    return f"Nothing can listen on port {port} of {host}: {os.strerror(error.errno or 0)}."


def _end_after(seconds: float, code: int) -> None:
    """End the process by then, whatever it is doing."""
    timer = threading.Timer(seconds, _end_now, (code,))
    timer.daemon = True
    timer.start()


def _end_at_the_latest(seconds: float) -> None:
    """Have the system end the process by then: a thread that holds the interpreter stops all that
    is written in Python."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _end_now(code: int) -> None:
    """End without waiting for anything; what the engine runs beside this process goes first."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
