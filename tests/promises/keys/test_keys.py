"""A gateway with API keys reveals nothing without one, whatever the form of the request, and
follows changes of its file. Real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import Fleet, Gmr, eventually, fleet
from tests.promises.raw_http import answer_of, send_raw

pytestmark = pytest.mark.slow

BODY = b'{"query": "a list", "documents": ["sorted"]}'
LENGTH = b"content-length: %d" % len(BODY)
SECRETS = ("gmr-tiny", "sha256:", "relevance_score", "rerank_requests")
"""What stands in answers that are for those with a key."""


def gmr(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment or None
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(file: Path) -> str:
    return gmr(
        "keys", "create", "--file", file, "--tenant", "first", "--name", "first"
    ).stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, file: Path, key: str) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("fleet"), 1, RERANK_API_KEYS_FILE=str(file)) as started:
        yield started
        assert key not in started.gateway.said()
        assert "Traceback" not in started.gateway.said()


def ask(gateway: Gmr, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return gateway.client.post("/rerank", content=BODY, headers=headers).status_code


def put(method: bytes, target: bytes, *headers: bytes, host: bytes = b"host: x") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", host, b"connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (BODY if LENGTH in headers else b"")


TARGETS = {
    "plain": put(b"GET", b"/info"),
    "a host that looks like a path": put(b"GET", b"/info", host=b"host: a/health/live?x="),
    "a host with credentials": put(b"GET", b"/info", host=b"host: x/health/live#@y"),
    "no host to speak of": put(b"GET", b"/info", host=b"host:"),
    "a whole URL": put(b"GET", b"http://x/info"),
    "a whole URL of another": put(b"GET", b"http://x/health/live/../../info"),
    "an at sign": put(b"GET", b"@evil/info"),
    "a double slash": put(b"GET", b"//info"),
    "steps up": put(b"GET", b"/health/live/../../info"),
    "encoded steps up": put(b"GET", b"/health/live/%2e%2e/%2e%2e/info"),
    "an encoded slash": put(b"GET", b"/health%2f..%2finfo"),
    "a backslash": put(b"GET", b"/health/live\\..\\..\\info"),
    "a parameter": put(b"GET", b"/info;/health/live"),
    "a query": put(b"GET", b"/info?/health/live"),
    "a fragment": put(b"GET", b"/info#/health/live"),
    "a slash at the end": put(b"GET", b"/info/"),
    "upper case": put(b"GET", b"/INFO"),
    "an unknown method": put(b"FOO", b"/rerank"),
    "a tunnel": put(b"CONNECT", b"x:443"),
    "a header that overrides": put(
        b"GET", b"/health/none", b"x-original-url: /info", b"x-rewrite-url: /info"
    ),
    "a method that overrides": put(
        b"POST", b"/info", b"x-http-method-override: GET", b"content-length: 0"
    ),
    "forwarded from here": put(
        b"GET", b"/info", b"x-forwarded-for: 127.0.0.1", b"x-forwarded-host: localhost"
    ),
    "metrics": put(b"GET", b"/metrics"),
    "rerank": put(b"POST", b"/rerank", b"content-type: application/json", LENGTH),
    "score": put(b"POST", b"/score", b"content-type: application/msgpack", LENGTH),
    "an empty key": put(b"GET", b"/info", b"authorization: Bearer "),
    "no scheme": put(b"GET", b"/info", b"authorization: x"),
    "not ASCII": put(b"GET", b"/info", "authorization: Bearer ключ".encode()),
    "bytes": put(b"GET", b"/info", b"authorization: Bearer \xff\xfe"),
    "a key in the query": put(b"GET", b"/info?api_key=x&key=x&token=x"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_however_it_is_asked_nothing_is_given_away(served: Fleet, name: str) -> None:
    received = send_raw(served.gateway.url, TARGETS[name])
    status, body = answer_of(received)
    assert status in (400, 401, 404, 405)
    assert body["detail"] == body["message"]
    assert not [secret for secret in SECRETS if secret.encode() in received]
    assert (b"www-authenticate: Bearer" in received) == (status == 401)


@pytest.mark.parametrize("target", [b"/rerank", b"/info", b"*"])
def test_a_question_about_methods_is_answered_with_nothing_else(
    served: Fleet, target: bytes
) -> None:
    received = send_raw(served.gateway.url, put(b"OPTIONS", target))
    assert answer_of(received) == (204, {})
    assert not [secret for secret in SECRETS if secret.encode() in received]


def test_a_key_that_is_sent_twice_is_no_key(served: Fleet, key: str) -> None:
    line = f"authorization: Bearer {key}".encode()
    assert answer_of(send_raw(served.gateway.url, put(b"GET", b"/info", line)))[0] == 200
    for lines in (
        (line, line),
        (b"authorization: Bearer x", line),
        (line, b"authorization: Bearer x"),
    ):
        assert answer_of(send_raw(served.gateway.url, put(b"GET", b"/info", *lines)))[0] == 401


def test_who_sends_a_large_body_without_a_key_is_told_so_and_may_go_on(
    served: Fleet, key: str
) -> None:
    """The answer is sent before the body has arrived: the rest of the body is discarded, and the
    connection can be reused."""
    with httpx.Client(base_url=served.gateway.url, timeout=60) as client:
        assert client.post("/rerank", content=b"x" * 2**25).status_code == 401
        assert (
            client.post(
                "/rerank", content=BODY, headers={"authorization": f"Bearer {key}"}
            ).status_code
            == 200
        )


def test_health_asks_nobody(served: Fleet) -> None:
    assert [served.gateway.status(f"/health/{which}") for which in ("live", "ready")] == [200, 200]


def test_keys_come_and_go_while_it_runs(served: Fleet, file: Path, key: str) -> None:
    gateway = served.gateway
    second = gmr(
        "keys", "create", "--file", file, "--tenant", "second", "--name", "second"
    ).stdout.strip()
    eventually(lambda: ask(gateway, second) == 200, why=gateway.said)
    good = file.read_bytes()
    file.write_text("{", encoding="utf-8")
    eventually(lambda: "keys kept as they were" in gateway.said(), why=gateway.said)
    assert (ask(gateway, key), ask(gateway, second)) == (200, 200)
    file.write_bytes(good)
    gmr("keys", "revoke", "second", "--file", file)
    eventually(lambda: ask(gateway, second) == 401, why=gateway.said)
    assert ask(gateway, key) == 200


def test_a_quota_is_kept_and_told(served: Fleet, file: Path) -> None:
    gateway = served.gateway
    slow = gmr(
        "keys", "create", "--file", file, "--tenant", "slow", "--pairs-per-second", "0.01"
    ).stdout.strip()
    eventually(lambda: ask(gateway, slow) != 401, why=gateway.said)
    headers = {"authorization": f"Bearer {slow}"}
    refused = gateway.client.post("/rerank", content=BODY, headers=headers)
    while refused.status_code == 200:
        refused = gateway.client.post("/rerank", content=BODY, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    shown = json.loads(file.read_text(encoding="utf-8"))
    assert slow not in json.dumps(shown)


@pytest.mark.parametrize(
    ("settings", "host", "why"),
    [
        ({}, "0.0.0.0", "No API key is required here"),
        ({"RERANK_API_KEYS_FILE": "/nowhere/keys.json"}, "127.0.0.1", "There is no keys file"),
        ({"RERANK_API_KEYS": ""}, "0.0.0.0", "holds no key"),
        ({"RERANK_API_KEYS": "short"}, "127.0.0.1", "16 to 256 characters"),
    ],
)
def test_it_does_not_start_with_nothing_to_ask_for(
    settings: dict[str, str], host: str, why: str
) -> None:
    ended = gmr("gateway", "--workers", "http://127.0.0.1:9", "--host", host, **settings)
    assert ended.returncode == (1 if settings else 2)
    *before, sentence = ended.stderr.splitlines()
    assert why in sentence
    assert all('"level":"info"' in line for line in before)


def test_a_worker_has_no_keys_to_ask_for() -> None:
    ended = gmr("worker", "--host", "0.0.0.0", RERANK_API_KEYS="k" * 32)
    assert (ended.returncode, ended.stderr.startswith("No API key is required here")) == (2, True)


def test_with_keys_it_may_listen_to_others(tmp_path: Path) -> None:
    arguments = ("gateway", "--workers", "http://127.0.0.1:9", "--host", "0.0.0.0")
    with Gmr(*arguments, log=tmp_path / "log", RERANK_API_KEYS="k" * 32) as process:
        eventually(lambda: process.status("/health/live") == 200, why=process.said)
        assert process.status("/info") == 401
