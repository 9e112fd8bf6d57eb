"""Cross-origin requests of browsers (the CORS protocol of the Fetch standard).

Depends on origins and headers, not on routes. Invariants: without configured origins no answer has
a CORS header; and no answer allows credentials, so that a browser attaches none: a page sends an
API key itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers, MutableHeaders

from service.web.origins import ANY_ORIGIN

_EXPOSED = "X-Request-Id, Retry-After, Server-Timing"
"""Headers of an answer that a page may read, beside those that it always may."""
_USUAL_HEADERS = "Authorization, Content-Type, X-Request-Id"
_PREFLIGHT_SECONDS = 600
"""Seconds that a browser may remember the answer to a preflight request."""
_MAX_REQUESTED = 4_096
_REQUESTED_HEADERS = re.compile(
    r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*"
)


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
