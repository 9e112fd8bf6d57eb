"""Origins of web pages, as an operator names them.

Depends on the syntax of origins alone. Invariant: an origin that is accepted is one that a browser
can send, written as browsers write it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY_ORIGIN = "*"
MAX_ORIGINS = 100
MAX_ORIGIN_CHARACTERS = 300
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
