"""Which URLs may be fetched, and which addresses dialled. Pure: nothing is looked up here.

A URL is read once, here, and only its parts are used from then on: there is no second parser that
could read it differently. Invariant: a host is a name, never an address in any spelling, and an
address is public only if its network is, whichever way an IPv4 address is written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from string import ascii_lowercase, digits
from urllib.parse import urlsplit

from service.errors import InvalidImage
from service.gateway.media.special_addresses import is_public_address

HTTPS_PORT = 443
MAX_URL = 4096
MAX_HOST = 253
MAX_LABEL = 63

_NOT_HTTPS = "An image's URL must begin with https://."
_UNREADABLE = (
    "The image's URL is not one that is fetched: https, a host name, no port, no user, ASCII"
    " without spaces."
)
_NOT_LISTED = "Images are not fetched from this host here."

_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F))) - {"\\"}
_NO_NAMES = frozenset("@[]")
"""Where these stand, there is a user before the host, or an address in its place."""
_LABEL = frozenset(ascii_lowercase + digits + "-_")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of whom: a lower-case host name, and the path with its query."""

    host: str
    path: str


def read_url(url: str, hosts: Sequence[str] = ()) -> Target:
    """The target of a URL that may be fetched; raises `InvalidImage`.

    `hosts`, if any, are those allowed: names, or `.example.com` for all names under it.
    """
    if not url.lower().startswith("https://"):
        raise InvalidImage(_NOT_HTTPS)
    if len(url) > MAX_URL or not _CHARACTERS.issuperset(url):
        raise InvalidImage(_UNREADABLE)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidImage(_UNREADABLE) from None
    host = parts.hostname or ""
    if (
        not _NO_NAMES.isdisjoint(parts.netloc)
        or port not in (None, HTTPS_PORT)
        or not _is_name(host)
    ):
        raise InvalidImage(_UNREADABLE)
    if hosts and not any(
        host == each or (each.startswith(".") and host.endswith(each)) for each in hosts
    ):
        raise InvalidImage(_NOT_LISTED)
    return Target(host, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def is_host_rule(text: str) -> bool:
    """Whether a text can be one of `hosts`."""
    return _is_name(text.removeprefix(".")) or (text.startswith(".") and _is_name(f"any{text}"))


def is_public(address: str) -> bool:
    """Whether an address, as a resolver writes it, belongs to the public internet."""
    try:
        return is_public_address(ip_address(address))
    except ValueError:
        return False


def _is_name(host: str) -> bool:
    """Two labels or more, the last of which begins with a letter, as no part of an address does in
    any spelling."""
    labels = host.split(".")
    fine = all(0 < len(label) <= MAX_LABEL and _LABEL.issuperset(label) for label in labels)
    return fine and len(labels) > 1 and len(host) <= MAX_HOST and labels[-1][0] in ascii_lowercase
