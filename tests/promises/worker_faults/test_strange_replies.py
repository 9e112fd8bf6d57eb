"""A worker that talks nonsense, or without end, costs its request an error of ours, and the gateway
next to nothing."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.wire import ScoreReply
from tests.gateway.stand_in import INFO, scored
from tests.processes import Gmr

pytestmark = pytest.mark.slow

MEBI = 2**20
ENDLESS = 512 * MEBI
"""More than the gateway could take without anybody noticing."""
GOOD = msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(1)], {"engine": 0.001}))


class Liar(BaseHTTPRequestHandler):
    """A worker on a real port that is ready, and replies as the test says."""

    protocol_version = "HTTP/1.1"
    reply: Callable[[Liar], None]
    sent = 0

    def do_GET(self) -> None:
        self.say(msgspec.json.encode([INFO]))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        Liar.reply(self)

    def say(self, body: bytes, announced: int | None = None) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def cut_off(liar: Liar) -> None:
    liar.say(GOOD[:-3], len(GOOD))
    liar.close_connection = True


def reset(liar: Liar) -> None:
    liar.close_connection = True


def endless(liar: Liar) -> None:
    liar.send_response(200)
    liar.send_header("transfer-encoding", "chunked")
    liar.end_headers()
    Liar.sent = 0
    try:
        while Liar.sent < ENDLESS:
            liar.wfile.write(b"%x\r\n%s\r\n" % (MEBI, b"\x00" * MEBI))
            Liar.sent += MEBI
    except ConnectionError:
        liar.close_connection = True


def huge_header(liar: Liar) -> None:
    liar.send_response(200)
    Liar.sent = 0
    try:
        while Liar.sent < ENDLESS:
            liar.wfile.write(b"x-more: %s\r\n" % (b"a" * MEBI))
            Liar.sent += MEBI
    except ConnectionError:
        liar.close_connection = True


STRANGE: dict[str, Callable[[Liar], None]] = {
    "garbage": lambda liar: liar.say(b"\xc1\xff garbage"),
    "nothing": lambda liar: liar.say(b""),
    "no number": lambda liar: liar.say(
        msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(math.nan)], {}))
    ),
    "too many": lambda liar: liar.say(
        msgspec.msgpack.encode(ScoreReply(INFO.digest, [scored(1), scored(2)], {}))
    ),
    "cut off": cut_off,
    "a reset": reset,
    "without end": endless,
    "a header without end": huge_header,
}


@contextmanager
def lying() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    with (
        lying() as url,
        Gmr("gateway", "--workers", url, log=tmp_path_factory.mktemp("gateway") / "log") as gateway,
    ):
        yield gateway.await_ready()


def most_memory(process: Gmr) -> int:
    """The most memory a process has had so far, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("strange", STRANGE)
def test_a_strange_reply_is_an_error_of_ours_and_the_next_good_one_is_used(
    gateway: Gmr, strange: str
) -> None:
    Liar.reply = STRANGE[strange]
    before, Liar.sent = most_memory(gateway), 0
    answer = gateway.rerank(query="q", documents=["a"], cache="bypass", timeout_ms=30_000)
    assert (answer.status_code, answer.json()["code"]) == (502, "worker_failed")
    assert answer.json().keys() == {"code", "message", "detail", "request_id"}
    assert Liar.sent < ENDLESS / 4
    assert most_memory(gateway) - before < 16 * MEBI
    Liar.reply = lambda liar: liar.say(GOOD)
    gateway.await_ready()
    assert gateway.rerank(query="q", documents=["a"], cache="bypass").status_code == 200
