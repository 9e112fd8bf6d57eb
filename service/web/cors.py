"""Cross-origin requests of browsers (the CORS protocol of the Fetch standard).

Depends on origins and headers, not on routes. Invariants: without configured origins no answer has
a CORS header; and no answer allows credentials, so that a browser attaches none: a page sends an
API key itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

ANY_ORIGIN = "*"
MAX_ORIGINS = 100
MAX_ORIGIN_CHARACTERS = 300
_EXPOSED = "X-Request-Id, Retry-After, Server-Timing"
"""Headers of an answer that a page may read, beside those that it always may."""
_USUAL_HEADERS = "Authorization, Content-Type, X-Request-Id"
_PREFLIGHT_SECONDS = 600
"""Seconds that a browser may remember the answer to a preflight request."""
_MAX_REQUESTED = 4_096
_REQUESTED_HEADERS = re.compile(
    r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*"
)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class BadOrigin(ValueError):
    """An entry that is no origin; the message is one sentence."""


def parse_origins(entries: Sequence[str]) -> tuple[str, ...]:
    """The origins as browsers write them: in lower case, without a default port, each once.

    Raises `BadOrigin`.
    """
    if len(entries) > MAX_ORIGINS:
        raise BadOrigin(f"There may be {MAX_ORIGINS} origins")
    origins = [_parse(entry) for entry in entries]
    if ANY_ORIGIN in origins and len(origins) > 1:
        raise BadOrigin("* allows every origin: give it alone, or name the origins without it")
    return tuple(dict.fromkeys(origins))


def _parse(entry: str) -> str:
    if entry == ANY_ORIGIN:
        return entry

    origin = entry.lower()
    if len(origin) > MAX_ORIGIN_CHARACTERS or not _ORIGIN.fullmatch(origin):
        raise BadOrigin(
            "An origin is scheme://host or scheme://host:port without a path, such as"
            " https://app.example.com; international names are written in Punycode"
        )
    parts = urlsplit(origin)
    try:
        port = parts.port
    except ValueError:
        raise BadOrigin("The port of an origin is 1 to 65535") from None
    if port == 0:
        raise BadOrigin("The port of an origin is 1 to 65535")
    return origin.removesuffix(_DEFAULT_PORTS.get(parts.scheme, "\0"))


class CrossOrigin:
    """The CORS headers of answers to pages of some origins; `*` stands for every origin."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)

    def add_headers(self, request: Headers, answer: MutableHeaders) -> None:
        """Add to an answer what lets a page of an allowed origin read it."""
        if not self._origins:
            return

        if ANY_ORIGIN not in self._origins:
            answer.add_vary_header("Origin")
        allowed = self._allowed(request.get("origin"))
        if allowed:
            answer["access-control-allow-origin"] = allowed
            answer["access-control-expose-headers"] = _EXPOSED

    def preflight_headers(self, request: Headers, methods: Sequence[str]) -> dict[str, str]:
        """The headers of an answer to `OPTIONS` for a path that takes these methods.

        They are those of a preflight request if it is one and its origin is allowed, else none.
        Headers that a page wants to send are allowed as it names them: clients send many of their
        own, and none of them has a privilege here.
        """
        if "access-control-request-method" not in request or not self._allowed(
            request.get("origin")
        ):
            return {}

        requested = request.get("access-control-request-headers", "").strip()
        if len(requested) > _MAX_REQUESTED or not _REQUESTED_HEADERS.fullmatch(requested):
            requested = _USUAL_HEADERS
        return {
            "access-control-allow-methods": ", ".join(methods),
            "access-control-allow-headers": requested,
            "access-control-max-age": str(_PREFLIGHT_SECONDS),
            "vary": "Access-Control-Request-Method, Access-Control-Request-Headers",
        }

    def _allowed(self, origin: str | None) -> str | None:
        """The value of `Access-Control-Allow-Origin` for a page of this origin; None if it is not
        allowed."""
        if origin is None:
            return None
        if ANY_ORIGIN in self._origins:
            return ANY_ORIGIN
        return origin if origin in self._origins else None
