"""Bytes that are almost HTTP, and misleading HTTP: answered with the flat error body or
disconnected, without any further effect."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from service.web.framing import MAX_HEADER_BYTES
from tests.conftest import CALM
from tests.processes import Gmr
from tests.promises.raw_http import answer_of, is_flat, send_raw

pytestmark = pytest.mark.slow

POST = (
    b"POST /rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
)
BODY = b'{"query": "a list", "documents": ["sorted"]}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
ROOM = 64 * 2**20
"""More memory than any of this may take, less than what is sent in all."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gmr]:
    environment = {
        "RERANK_READ_TIMEOUT_SECONDS": "1",
        "RERANK_KEEP_ALIVE_SECONDS": "5",
        "RERANK_MAX_BODY_BYTES": str(2**20),
    }
    with Gmr(
        "serve", log=tmp_path_factory.mktemp("hostile") / "log", **CALM | environment
    ) as process:
        process.await_ready()
        yield process
        assert "Traceback" not in process.said()


@pytest.fixture(autouse=True)
def _unharmed(served: Gmr) -> Iterator[None]:
    """The process is unchanged, and the next request is answered."""
    before = psutil.Process(served.pid).memory_info().rss
    yield
    assert psutil.Process(served.pid).memory_info().rss - before < ROOM
    assert served.rerank(query="a list", documents=["sorted"]).status_code == 200


def get(target: bytes, *headers: bytes, method: bytes = b"GET") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"host: x", b"connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


REFUSED = {
    "a negative length": POST + b"content-length: -1\r\n\r\n" + BODY,
    "a signed length": POST + b"content-length: +44\r\n\r\n" + BODY,
    "a length that is no number": POST + b"content-length: many\r\n\r\n" + BODY,
    "a length in Arabic digits": POST + "content-length: ٤٤\r\n\r\n".encode() + BODY,
    "a fraction of a length": POST + b"content-length: 4.4\r\n\r\n" + BODY,
    "an endless number": POST + b"content-length: " + b"9" * 5_000 + b"\r\n\r\n" + BODY,
    "two lengths": POST + LENGTH + b"content-length: 3\r\n\r\n" + BODY,
    "two lengths in one": POST + b"content-length: 44, 3\r\n\r\n" + BODY,
    "an unknown coding": POST + b"transfer-encoding: gzip\r\n\r\n" + BODY,
    "chunks of an unknown coding": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST
    + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a negative chunk": POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + BODY,
    "a chunk beyond numbers": POST
    + b"transfer-encoding: chunked\r\n\r\n"
    + b"f" * 40
    + b"\r\n"
    + BODY,
    "a chunk that is longer than it says": POST
    + b"transfer-encoding: chunked\r\n\r\n1\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "a chunk's name without end": POST + b"transfer-encoding: chunked\r\n\r\n1;" + b"a" * 2**20,
    "trailers without end": POST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2**17,
    "a space before the colon": POST + b"content-length : 44\r\n\r\n" + BODY,
    "a header without a name": get(b"/health/live", b": x"),
    "a header with a NUL": get(b"/health/live", b"x: a\0b"),
    "a header of a megabyte": get(b"/health/live", b"x: " + b"a" * 2**20),
    "ten thousand headers": get(
        b"/health/live", *(b"x-%d: some value" % number for number in range(10_000))
    ),
    "a target of a megabyte": get(b"/" + b"a" * 2**20),
    "a target with a space": get(b"/health /live"),
    "a target that is not ASCII": get("/health/líve".encode()),
    "no version": b"GET /health/live\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "a binary protocol": b"*1\r\n$4\r\nPING\r\n",
    "a method with brackets": get(b"/health/live", method=b"GE(T"),
    "a length and chunks": POST
    + LENGTH
    + b"transfer-encoding: chunked\r\n\r\n2c\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "chunks and a length": POST
    + b"transfer-encoding: chunked\r\n"
    + LENGTH
    + b"\r\n2c\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": POST.replace(b"1.1", b"1.0")
    + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a thousand headers of a few bytes": get(
        b"/health/live", *(b"x-%d: y" % number for number in range(1_000))
    ),
    "129 headers": get(b"/health/live", *(b"x-%d: y" % number for number in range(127))),
    "64 KiB of headers at once": get(b"/health/live", *(b"x: " + b"y" * 1_000 for _ in range(66))),
    "129 trailers": POST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 129 + b"\r\n",
    "a body in crumbs": POST
    + b"transfer-encoding: chunked\r\n\r\n"
    + b"1\r\n \r\n" * 2_000
    + b"0\r\n\r\n",
    "crumbs with names": POST
    + b"transfer-encoding: chunked\r\n\r\n"
    + (b"1;" + b"a" * 500 + b"\r\n \r\n") * 2_000
    + b"0\r\n\r\n",
    "two hosts": get(b"/health/live", b"host: y"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sound_http_is_refused(served: Gmr, case: str) -> None:
    is_flat(send_raw(served.url, REFUSED[case]), 400)


def test_a_length_together_with_chunks_cannot_smuggle_a_request(served: Gmr) -> None:
    """A proxy may use one, a server the other: the request is refused, and no request behind it
    is read."""
    hidden = get(b"/metrics")
    sent = (
        POST
        + b"content-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" % (len(hidden) + 5)
        + hidden
    )
    received = send_raw(served.url, sent)
    assert received.count(b"HTTP/1.1 ") == 1
    is_flat(received, 400)
    assert answer_of(received)[1]["message"] == "The request is not valid HTTP."


def test_chunks_of_any_size_are_taken_while_they_are_few(served: Gmr) -> None:
    chunks = b"".join(b"1;name=x\r\n" + bytes([byte]) + b"\r\n" for byte in BODY.ljust(1_000))
    trailers = b"x: y\r\n" * 128
    sent = POST + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"
    assert answer_of(send_raw(served.url, sent))[0] == 200
    headers = [b"x-%d: y" % number for number in range(126)]
    assert answer_of(send_raw(served.url, get(b"/health/live", *headers)))[0] == 200


def test_what_follows_a_body_that_is_longer_than_announced_is_no_request(served: Gmr) -> None:
    sent = (
        POST.replace(b"connection: close\r\n", b"")
        + b"content-length: 2\r\n\r\n"
        + BODY
        + b"\r\n\r\n"
    )
    first, second = re.findall(
        rb"HTTP/1\.1 \d+.*?\r\n\r\n\{.*?\}(?=HTTP|$)", send_raw(served.url, sent), re.DOTALL
    )
    is_flat(first, 400)
    is_flat(second, 400)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health/live HTTP/1.0\r\n\r\n", 200),
        (POST.replace(b"HTTP/1.1", b"HTTP/1.0") + LENGTH + b"\r\n" + BODY, 200),
        (POST + LENGTH + LENGTH + b"\r\n" + BODY, 200),
        (
            POST
            + b"transfer-encoding: chunked\r\n\r\n2c;a=b\r\n"
            + BODY
            + b"\r\n0\r\nx: trailer\r\n\r\n",
            200,
        ),
        (get(b"/health/live", b"upgrade: websocket", b"sec-websocket-version: 13"), 200),
        (get(b"http://elsewhere/health/live"), 200),
        (get(b"http://elsewhere/nowhere"), 404),
        (get(b"elsewhere:443", method=b"CONNECT"), 404),
        (get(b"*", method=b"OPTIONS"), 204),
        (get(b"/nowhere", method=b"OPTIONS"), 404),
        (get(b"/%00%ff/..%2f..%2fetc/passwd"), 404),
        (get(b"/health/../metrics"), 404),
        (get(b"//health/live"), 200),
        (get(b"/health/live/"), 200),
        (get(b"/health//live//"), 200),
        (get(b"/" + b"a" * (MAX_HEADER_BYTES // 2)), 404),
        (get(b"/rerank", method=b"FOO"), 405),
        (get(b"/rerank", method=b"A" * 10_000), 405),
        (POST + b"content-length: 99999999999999999999\r\n\r\n", 413),
        (
            POST
            + b"transfer-encoding: chunked\r\n\r\n200000\r\n"
            + b" " * 0x200000
            + b"\r\n0\r\n\r\n",
            413,
        ),
        (
            POST.replace(b"application/json", b"multipart/form-data; boundary=x")
            + LENGTH
            + b"\r\n"
            + BODY,
            415,
        ),
        (POST + b"content-encoding: gzip\r\n" + LENGTH + b"\r\n" + BODY, 400),
        (POST + b"content-encoding: identity\r\n" + LENGTH + b"\r\n" + BODY, 200),
    ],
)
def test_what_is_sound_gets_its_own_answer(served: Gmr, sent: bytes, status: int) -> None:
    received = send_raw(served.url, sent)
    if status < 400:
        assert answer_of(received)[0] == status
    else:
        is_flat(received, status)


def test_a_hundred_megabytes_in_chunks_are_cut_at_the_cap(served: Gmr) -> None:
    body = (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 100 + b"0\r\n\r\n"
    is_flat(send_raw(served.url, POST + b"transfer-encoding: chunked\r\n\r\n" + body), 413)


def test_noise_is_never_answered_with_more_than_an_error(served: Gmr) -> None:
    noise = random.Random(7)
    broken = []
    for _ in range(200):
        sent = bytearray(POST + LENGTH + b"\r\n" + BODY)
        for _ in range(noise.randint(1, 4)):
            sent[noise.randrange(len(POST))] = noise.randrange(256)
        broken.append(bytes(sent))
    with ThreadPoolExecutor(16) as threads:  # some are cut off only when their second is over
        for received in threads.map(lambda sent: send_raw(served.url, sent), broken):
            if received and not received.startswith(b"HTTP/1.1 200 "):
                is_flat(received, 400, 404, 405, 415)


def test_metrics_grow_with_nothing_that_clients_choose(served: Gmr) -> None:
    """The first request of a kind creates its series; a hundred others create none."""

    def wander(seed: int) -> None:
        chosen = random.Random(seed)
        word = "".join(chosen.choices("abcdefghijklmnopqrstuvwxyz", k=12))
        for method, path in (
            (word.upper(), "/rerank"),
            (word.upper(), f"/{word}"),
            ("GET", f"/health/{word}"),
        ):
            served.client.request(
                method, path, headers={"host": word, "x-request-id": word, f"x-{word}": word}
            )
        served.rerank(query=word, documents=[word], **{word: word})
        served.rerank(query=word, documents=[word], model=word, instruction=word)
        send_raw(served.url, word.encode() + b"\r\n\r\n")

    wander(0)
    series(served.client)
    before = series(served.client)
    for seed in range(1, 100):
        wander(seed)
    assert series(served.client) == before


def series(client: httpx.Client) -> set[str]:
    """Every sample's name and labels."""
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}
