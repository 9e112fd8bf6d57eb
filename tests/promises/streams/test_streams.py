"""Streams over real connections: answers while the body is sent, clients that send everything
first, clients that stop, and a process that is drained."""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.responses import Response

from service.wire import ScoreCall
from tests.gateway.stand_in import StandIn, reply, scored
from tests.processes import Gmr, eventually
from tests.promises.limited_gateway import serving
from tests.promises.raw_http import dial

pytestmark = pytest.mark.slow

PATH = "/v1/rerank/stream"
READ_TIMEOUT = 1.0
LINES_AT_ONCE = 8
IDLE = 4.0


class Valve(StandIn):
    """A worker that scores while `open` is set."""

    def __init__(self) -> None:
        super().__init__(self._when_open)
        self.open = threading.Event()
        self.open.set()

    async def _when_open(self, call: ScoreCall) -> Response:
        self.calls.clear()
        while not self.open.is_set():
            await asyncio.sleep(0.01)
        return reply([scored(1.0)] * len(call.documents))


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[Valve, str]]:
    valve = Valve()
    with serving(valve.app) as url:
        yield valve, url


def gateway(url: str, log: Path, **settings: str) -> Gmr:
    bounds = {
        "RERANK_READ_TIMEOUT_SECONDS": str(READ_TIMEOUT),
        "RERANK_STREAM_LINES": str(LINES_AT_ONCE),
        "RERANK_STREAM_IDLE_MS": str(int(IDLE * 1000)),
    }
    return Gmr("gateway", "--workers", url, log=log, **bounds | settings)


@pytest.fixture(scope="module")
def served(worker: tuple[Valve, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    with gateway(worker[1], tmp_path_factory.mktemp("stream") / "log") as process:
        yield process.await_ready()


def line(number: int, count: int = 1, **fields: Any) -> bytes:
    texts = [f"{number} {index}" for index in range(count)]
    body = {"id": number, "query": "q", "documents": texts, "cache": "bypass"} | fields
    return json.dumps(body).encode() + b"\n"


class Stream:
    """A client of a stream that sends and reads when it is told to."""

    def __init__(self, url: str, *, expect: bool = False, **options: Any) -> None:
        self.connection = dial(url, **options)
        self._received = b""
        self._body = b""
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n"
        head += "transfer-encoding: chunked\r\n"
        head += "expect: 100-continue\r\n\r\n" if expect else "\r\n"
        self.connection.sendall(head.encode())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, *lines: bytes) -> None:
        self.connection.sendall(b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in lines))

    def end(self) -> None:
        self.connection.sendall(b"0\r\n\r\n")

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self._received:
            received = self.connection.recv(65_536)
            assert received, self._received
            self._received += received
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def answer(self) -> dict[str, Any] | None:
        """The next line; None at the end of the answer."""
        while b"\n" not in self._body:
            size, found, rest = self._received.partition(b"\r\n")
            if found and len(rest) >= int(size, 16) + 2:
                if not int(size, 16):
                    return None
                self._body += rest[: int(size, 16)]
                self._received = rest[int(size, 16) + 2 :]
                continue
            received = self.connection.recv(65_536)
            assert received, "the connection was closed"
            self._received += received
        content, _, self._body = self._body.partition(b"\n")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def rest(self) -> list[dict[str, Any]]:
        """The lines up to the end of the answer."""
        return list(iter(self.answer, None))


def test_answers_come_while_the_client_sends_however_slowly(served: Gmr) -> None:
    """The headers come before the first line, and pauses are longer than the read timeout."""
    with Stream(served.url) as stream:
        assert stream.head().startswith(b"HTTP/1.1 200 ")
        for number in range(3):
            time.sleep(1.7 * READ_TIMEOUT)
            stream.send(line(number))
            answer = stream.answer()
            assert answer
            assert answer["id"] == number
        stream.end()
        assert stream.rest() == []


def test_a_client_that_waits_to_be_told_is_told(served: Gmr) -> None:
    with Stream(served.url, expect=True) as stream:
        assert stream.head().startswith(b"HTTP/1.1 100 ")
        assert stream.head().startswith(b"HTTP/1.1 200 ")
        stream.send(line(1))
        stream.end()
        assert [answer["id"] for answer in stream.rest()] == [1]


def test_a_client_that_sends_everything_first_is_answered(served: Gmr) -> None:
    """The answers are more than the buffers of both systems hold, and it reads none meanwhile."""
    count, documents = 600, 100
    with Stream(served.url, receive_buffer=4_096) as stream:
        stream.send(*(line(number, documents) for number in range(count)))
        stream.end()
        assert stream.head().startswith(b"HTTP/1.1 200 ")
        answers = stream.rest()
    assert sorted(answer["id"] for answer in answers) == list(range(count))
    assert all(len(answer["results"]) == documents for answer in answers)


def test_many_short_lines_may_be_chunks_of_their_own(served: Gmr) -> None:
    count = 3_000
    with Stream(served.url) as stream:
        reader = threading.Thread(target=lambda: answers.extend(stream.rest()))
        answers: list[dict[str, Any]] = []
        stream.head()
        reader.start()
        for _ in range(count):
            stream.send(b'{"query":"a","documents":"b"}\n')
        stream.end()
        reader.join()
    assert sorted(answer["id"] for answer in answers) == list(range(1, count + 1))


def test_the_body_is_read_only_as_fast_as_it_is_answered(
    served: Gmr, worker: tuple[Valve, str]
) -> None:
    """While the worker does nothing, few lines are read; then all are answered."""
    valve, _ = worker
    with Stream(served.url) as stream:
        stream.head()
        valve.open.clear()
        try:
            stream.connection.setblocking(False)
            sent = 0
            large = line(0, documents=["a " * 20_000])
            framed = b"%x\r\n%s\r\n" % (len(large), large)
            rest = b""
            while select.select([], [stream.connection], [], 2 * READ_TIMEOUT)[1]:
                rest = rest or framed
                done = stream.connection.send(rest)
                sent, rest = sent + done, rest[done:]
            assert served.metric("rerank_stream_lines_in_flight") == LINES_AT_ONCE
            assert served.metric("rerank_request_bodies_bytes") < 2**20
            assert sent < 2**25
        finally:
            valve.open.set()
        stream.connection.settimeout(60)
        sender = threading.Thread(target=lambda: (stream.connection.sendall(rest), stream.end()))
        sender.start()
        answers = stream.rest()
        sender.join()
    assert len(answers) == (sent + len(rest)) // len(framed)


def test_a_client_that_never_reads_is_disconnected(served: Gmr) -> None:
    """Memory for its answers is bounded, and everything is released."""
    process = psutil.Process(served.pid)
    before = process.memory_info().rss
    with Stream(served.url, receive_buffer=4_096) as stream, suppress(ConnectionError):
        for number in range(100_000):
            stream.send(line(number, 500))
        pytest.fail("it was never disconnected")
    assert process.memory_info().rss < before + 150 * 2**20
    eventually(lambda: served.metric("rerank_streams") == 0)
    assert served.metric("rerank_request_bodies_bytes") == 0


@pytest.mark.parametrize("reset", [False, True])
def test_the_work_of_a_client_that_disconnects_is_cancelled(
    served: Gmr, worker: tuple[Valve, str], reset: bool
) -> None:
    """Also while so many lines wait that the body is not read."""
    valve, _ = worker
    valve.open.clear()
    try:
        with Stream(served.url) as stream:
            stream.send(*(line(number) for number in range(5_000)))
            eventually(lambda: served.metric("rerank_stream_lines_in_flight") == LINES_AT_ONCE)
            if reset:
                linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
                stream.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        eventually(lambda: served.metric("rerank_stream_lines_in_flight") == 0)
        assert served.metric("rerank_streams") == 0
    finally:
        valve.open.set()


def test_a_stream_in_which_nothing_happens_is_ended(served: Gmr) -> None:
    with Stream(served.url) as stream:
        stream.send(line(1))
        answers = stream.rest() if stream.head() else []
    assert [answer["id"] for answer in answers] == [1, None]
    assert answers[1]["code"] == "deadline_exceeded"


def test_a_stream_ends_cleanly_when_the_process_is_drained(
    worker: tuple[Valve, str], tmp_path: Path
) -> None:
    """Lines that could not be answered in time have an error, and the rest is named."""
    valve, url = worker
    with gateway(url, tmp_path / "log", RERANK_DRAIN_SECONDS="0.5") as process:
        process.await_ready()
        with Stream(process.url) as stream:
            stream.send(line(1))
            stream.head()
            assert stream.answer()
            valve.open.clear()
            try:
                stream.send(line(2), line(3))
                eventually(lambda: process.metric("rerank_stream_lines_in_flight") == 2)
                process.signal(signal.SIGTERM)
                answers = stream.rest()
            finally:
                valve.open.set()
            assert process.wait() == 0
    assert answers[-1]["id"] is None
    assert sorted(answer["id"] for answer in answers[:-1]) == [2, 3]
    assert {answer["code"] for answer in answers} == {"overloaded"}
    assert "after line 3 " in answers[-1]["message"]
    assert "Traceback" not in process.said()


def test_a_client_that_does_not_read_does_not_hold_up_the_end_of_a_process(
    worker: tuple[Valve, str], tmp_path: Path
) -> None:
    settings = {"RERANK_DRAIN_SECONDS": "0.5", "RERANK_GRACE_SECONDS": "3600"}
    with gateway(worker[1], tmp_path / "log", **settings) as process:
        process.await_ready()
        with Stream(process.url, receive_buffer=4_096) as stream:
            with suppress(TimeoutError):
                stream.connection.settimeout(READ_TIMEOUT / 2)
                for number in range(100_000):
                    stream.send(line(number, 500))
            process.signal(signal.SIGTERM)
            assert process.wait() == 0


def test_httpx_and_its_generators_work(served: Gmr) -> None:
    """A client that most people use: it sends everything before it reads."""
    lines = (line(number) for number in range(50))
    headers = {"content-type": "application/x-ndjson"}
    with httpx.stream("POST", served.url + PATH, content=lines, headers=headers) as answer:
        ids = [json.loads(each)["id"] for each in answer.iter_lines()]
    assert sorted(ids) == list(range(50))
    eventually(lambda: '"lines":50,' in served.said(), why=served.said)
