"""A server sends each part of an answer at once (TCP_NODELAY): held back, the second part waits for
a client's delayed acknowledgement, some 40 ms on a connection that stays open."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx

_PROGRAM = """
import os, socket, sys
from fastapi import Request
from starlette.responses import PlainTextResponse
from service.web.asgi import add_common_routes, new_app
from service.web.full_duplex import connection_of
from service.web.server import Server
from service.web.settings import ServerSettings

app = new_app()
add_common_routes(app, is_ready=lambda: True)

@app.get("/option")
async def option(request: Request):
    transport = connection_of(request).transport
    connection = transport.get_extra_info("socket")
    return PlainTextResponse(str(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
server = Server("127.0.0.1", port)
app.router.on_startup.append(lambda: print(server.url, flush=True))
server.run(app, ServerSettings())
"""


def answered(url: str) -> bytes:
    """The body at an address, once something listens there."""
    for _ in range(200):
        try:
            return httpx.get(url, trust_env=False, timeout=30).content
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("nothing listens")


def test_parts_of_an_answer_do_not_wait_for_acknowledgements() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            url = program.stdout.readline().strip()
            assert answered(f"{url}/option") == b"1"
        finally:
            program.kill()
