"""HTTP calls as a client makes them: each over a connection of its own, so that connecting is part
of the measured time.

Does not depend on what a server does. Invariant: a body is returned only for status 200.
"""

from __future__ import annotations

import http.client
import re
import socket
from urllib.parse import urlsplit

ANSWER_SECONDS = 1200
_SAMPLE = re.compile(r"^(\w[\w:]*)(\{[^}]*\})? (\S+)$", re.MULTILINE)
_TOKEN_SOURCES = ("computed", "prefix", "cached")


class CallFailed(Exception):
    """A server answered with an error, or broke an answer off."""


def free_url() -> str:
    """An address on this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def port_of(url: str) -> str:
    """The port of an address, as a command line takes it."""
    return str(urlsplit(url).port)


def post(
    url: str, path: str, body: bytes, content_type: str = "application/json", *, key: str = ""
) -> bytes:
    """The answer's body; raises `CallFailed`, or `OSError` where nothing listens. `key` is an API
    key, where the server asks for one."""
    headers = {"content-type": content_type}
    if key:
        headers["authorization"] = f"Bearer {key}"
    return _send(url, "POST", path, body, headers)


def get(url: str, path: str) -> bytes:
    """The answer's body; raises as `post` does."""
    return _send(url, "GET", path, None, {})


def answers(url: str, path: str) -> bool:
    """True if a path answers with status 200; raises `OSError` where nothing listens."""
    try:
        get(url, path)
    except CallFailed:
        return False
    return True


def metrics(url: str) -> dict[str, float]:
    """A server's Prometheus metrics: value by name with labels, such as
    `rerank_shed_total{reason="rate"}`."""
    text = get(url, "/metrics").decode()
    return {name + labels: float(value) for name, labels, value in _SAMPLE.findall(text)}


def prompt_tokens(url: str) -> dict[str, float]:
    """Prompt tokens that a gateway has counted so far: `computed` by an engine, from a `prefix`
    cache, or of pairs that were `cached`."""
    found = metrics(url)

    tokens = {}
    for source in _TOKEN_SOURCES:
        tokens[source] = found.get(f'rerank_prompt_tokens_total{{source="{source}"}}', 0.0)
    return tokens


def _send(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
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
