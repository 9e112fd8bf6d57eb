"""A gateway process with limited resources, and a worker that scores at once and keeps nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from service.wire import ScoreCall
from tests.gateway.stand_in import StandIn, reply, scored
from tests.processes import Gmr, eventually

_PROGRAM = """
import os, resource, sys
for kind, most in {limits}.items():
    resource.setrlimit(kind, (most, most))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Forgetful(StandIn):
    """A worker that scores at once and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(_quick)

    async def _score(self, request: Request) -> Response:
        answer = await super()._score(request)
        self.calls.clear()
        return answer


async def _quick(call: ScoreCall) -> Response:
    return reply([scored(1.0)] * len(call.documents))


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """A server in a thread; gives its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def limited_gateway(log: Path, limits: Mapping[int, int], **settings: str) -> Iterator[Gmr]:
    """A gateway with these resource limits (`resource.RLIMIT_AS`, ...)."""
    with serving(Forgetful().app) as url:
        limiting = [sys.executable, "-c", _PROGRAM.format(limits=dict(limits))]
        with Gmr("gateway", "--workers", url, log=log, interpreter=limiting, **settings) as process:
            yield process.await_ready()
