"""Clients that send slowly, stop, or never read: each is disconnected, uses few resources
meanwhile, and does not affect others."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.conftest import CALM
from tests.processes import Gmr, eventually
from tests.promises.raw_http import answer_of, dial, drip, is_flat, read_to_end

pytestmark = pytest.mark.slow

MAX_CONNECTIONS = 20
CAP = 2**20
ESTABLISHED = 1  # TCP_ESTABLISHED of Linux' tcp_states.h
HEAD = b"POST /rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = b'{"query": "a list", "documents": ["sorted"]}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    """A server with a read timeout of a second."""
    settings = {
        "READ_TIMEOUT_SECONDS": 1,
        "KEEP_ALIVE_SECONDS": 7,
        "MAX_CONNECTIONS": MAX_CONNECTIONS,
        "MAX_BODY_BYTES": CAP,
    }
    environment = {f"RERANK_{name}": str(value) for name, value in settings.items()}
    with Gmr("serve", log=tmp_path_factory.mktemp("slow") / "log", **CALM | environment) as process:
        yield process.await_ready()


@pytest.fixture(autouse=True)
def _unharmed(served: Gmr) -> Iterator[None]:
    """Whatever a client did, the process continues, and no connection is left."""
    before = open_files(served)
    yield
    # our own connection, which may be a new one
    eventually(lambda: open_files(served) <= before + 1, why=served.said)
    assert served.rerank(query="a list", documents=["sorted"]).status_code == 200
    assert "Traceback" not in served.said()


def open_files(process: Gmr) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def is_hung_up_on(connection: socket.socket) -> bool:
    """Whether the system knows that the other end has closed the connection."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != ESTABLISHED


def test_a_client_that_says_nothing_is_hung_up_on(served: Gmr) -> None:
    with dial(served.url) as connection:
        assert read_to_end(connection) == b""


def test_an_idle_connection_is_kept_longer_than_clients_keep_theirs(served: Gmr) -> None:
    """httpx, and with it most SDKs, closes one after 5 s; a server that closes it at the same
    time breaks a call now and then."""
    with dial(served.url) as connection:
        for seconds in (6, 0):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                more = connection.recv(65_536)
                assert more, "it is closed"
                received += more
            assert answer_of(received)[0] == 200
            time.sleep(seconds)
        assert read_to_end(connection) == b""  # in the end it is closed


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", b"GET /health/live HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 10_000),
        (b"GET /health/live HTTP/1.1\r\nhost: x\r\n", b"x: a\r\n" * 2_000),
        (HEAD + b"content-length: 10000\r\n\r\n", b" " * 10_000),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 2_000),
        (HEAD + b"content-length: 10000\r\n\r\n" + BODY, b""),
        (HEAD + b"content-length: 100000\r\n\r\n" + b" " * 99_999, b""),
        (b"GET /health/live HTTP/1.1\r\nhos", b""),
    ],
    ids=[
        "the header",
        "header after header",
        "the body",
        "chunk after chunk",
        "half a body",
        "but for a byte",
        "half a header",
    ],
)
def test_a_client_that_sends_too_slowly_or_stops_is_told_so_and_cut_off(
    served: Gmr, at_once: bytes, slowly: bytes
) -> None:
    with dial(served.url) as connection:
        connection.sendall(at_once)
        received = drip(connection, slowly)
    is_flat(received, 400)
    assert answer_of(received)[1]["message"] == "The request took too long to arrive."
    assert b"\r\nconnection: close\r\n" in received


def test_many_small_chunks_are_no_slow_client(served: Gmr) -> None:
    """Nor is a client that sends `Expect: 100-continue`."""
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in BODY)
    with dial(served.url) as connection:
        connection.sendall(
            HEAD
            + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            + chunks
            + b"0\r\n\r\n"
        )
        assert answer_of(read_to_end(connection))[0] == 200
    with dial(served.url) as connection:
        connection.sendall(
            HEAD
            + b"connection: close\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert answer_of(read_to_end(connection))[0] == 200


def test_a_body_without_end_is_cut_at_the_cap_and_takes_no_memory(served: Gmr) -> None:
    """The client continues to send after the answer: for a while, the data is read and
    discarded."""
    process = psutil.Process(served.pid)
    before, sent, chunk = process.memory_info().rss, 0, b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with dial(served.url) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        try:
            while sent < 2**40:
                connection.sendall(chunk)
                sent += len(chunk)
        except ConnectionError:
            pass
    assert sent > 20 * CAP
    assert process.memory_info().rss - before < 20 * CAP


def test_an_answer_that_nobody_reads_is_given_up(served: Gmr) -> None:
    """More answers are requested at once than the kernel buffers; the fixture checks that the
    connection is closed."""
    with dial(served.url, receive_buffer=4_096) as connection:
        connection.setblocking(False)
        asked = 0
        while asked < 50_000:
            try:
                asked += connection.send(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
            except BlockingIOError:
                break
        eventually(lambda: is_hung_up_on(connection), why=served.said)


def test_an_answer_that_the_system_holds_for_its_client_is_given_up_too(served: Gmr) -> None:
    """The answer is small enough to leave the process, and too large for the client's receive
    buffer."""
    with dial(served.url, receive_buffer=4_096) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
        eventually(lambda: is_hung_up_on(connection), why=served.said)
        with pytest.raises(ConnectionResetError):
            take_all(connection)


def test_a_client_that_asks_little_again_and_again_is_no_slow_one(served: Gmr) -> None:
    """At every tick some answer is being sent, always another one."""
    with dial(served.url) as connection:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                more = connection.recv(65_536)
                assert more, "it is closed"
                received += more
            time.sleep(0.03)  # less than the system waits before it acknowledges by itself


def test_a_client_that_takes_a_long_answer_at_its_own_pace_is_waited_for(served: Gmr) -> None:
    """As much is produced as the client reads, so the unsent rest is the same at every tick."""
    asked = 500
    with dial(served.url, receive_buffer=65_536) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * (asked - 1))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = answers = 0
        while chunk := connection.recv(65_536):
            received += len(chunk)
            answers += chunk.count(b"HTTP/1.1 200 ")
            time.sleep(len(chunk) / 2**21)
    assert received > 5 * 2**20
    assert answers >= asked - 5, "a status line may be cut in two"


def test_beyond_the_limit_of_connections_only_health_is_answered(served: Gmr) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(dial(served.url)) for _ in range(MAX_CONNECTIONS)]
        for connection in slow:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n")
        time.sleep(0.2)  # until the last of them is heard; idle ones would give way
        refused, healthy = (raw_get(served.url, path) for path in ("/info", "/health/ready"))
        is_flat(refused, 503)
        assert b"\r\nconnection: close\r\n" in refused.lower()
        assert b"\r\nretry-after: " in refused
        assert answer_of(refused)[1]["code"] == "overloaded"
        assert answer_of(healthy)[0] == 200
        assert all(answer_of(read_to_end(each))[0] == 400 for each in slow)
    eventually(lambda: served.status("/info") == 200, why=served.said)


def take_all(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def raw_get(url: str, path: str) -> bytes:
    with dial(url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return read_to_end(connection)
