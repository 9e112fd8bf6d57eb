"""The environment with vLLM has uvloop, which tells no handler of connections that could not be
accepted: servers run asyncio's own loop there, too."""

from __future__ import annotations

import subprocess

from tests.conftest import free_port
from tests.worker.engines.vllm.engine_worker import PYTHON

PROGRAM = """
import asyncio
import sys
from contextlib import asynccontextmanager

import uvloop
from fastapi import FastAPI

from service.web.server import Server
from service.web.settings import ServerSettings


@asynccontextmanager
async def lifespan(app):
    print(isinstance(asyncio.get_running_loop(), uvloop.Loop), flush=True)
    server.fail()
    yield

server = Server("127.0.0.1", int(sys.argv[1]))
server.run(FastAPI(lifespan=lifespan), ServerSettings())
"""


def test_a_server_takes_asyncios_loop_beside_uvloop() -> None:
    command = [PYTHON, "-c", PROGRAM, str(free_port())]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert said.stdout == "False\n", said.stderr
