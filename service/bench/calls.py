"""A client's side of HTTP: bytes there and back, over a connection of its own, as the clock should
see it.

Knows no server. Invariant: an answer is handed on only with status 200.
"""

from __future__ import annotations

import http.client
import re
import socket
from urllib.parse import urlsplit

ANSWER_SECONDS = 1200
_NUMBER = re.compile(r"^(\w[\w:]*)(\{[^}]*\})? (\S+)$", re.MULTILINE)


class CallFailed(Exception):
    """A server answered with an error."""


def free_url() -> str:
    """An address on this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def port_of(url: str) -> str:
    """The port of an address, as command lines want it."""
    return str(urlsplit(url).port)


def post(url: str, path: str, body: bytes, kind: str = "application/json") -> bytes:
    """The answer's body; raises `CallFailed`, or `OSError` where nobody listens."""
    return _ask(url, "POST", path, body, {"content-type": kind})


def get(url: str, path: str) -> bytes:
    """As `post`, with nothing to say."""
    return _ask(url, "GET", path, None, {})


def answers(url: str, path: str) -> bool:
    """Whether a path answers with status 200; raises `OSError` where nobody listens."""
    try:
        get(url, path)
    except CallFailed:
        return False
    return True


def numbers(url: str) -> dict[str, float]:
    """A server's Prometheus metrics: value by name with labels, such as
    `rerank_shed_total{reason="rate"}`."""
    text = get(url, "/metrics").decode()
    return {name + labels: float(value) for name, labels, value in _NUMBER.findall(text)}


def _ask(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    except http.client.HTTPException as error:
        raise CallFailed(f"{path} was cut off ({type(error).__name__}).") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise CallFailed(
            f"{path} answered {response.status}: {content.decode(errors='replace')[:500]}"
        )
    return content
