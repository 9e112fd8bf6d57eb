"""URLs that may be fetched, and addresses that may be connected to; nothing is looked up here.

A URL is parsed once, here, and only its parts are used after that: no second parser can read it
differently. Invariant: a host is a name and never an address in any spelling; an address is public
only if its network is, in whatever way an IPv4 address is written into it.
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
_NOT_IN_AUTHORITY = frozenset("@[]")
"""Characters of user information and of an IP literal."""
_LABEL_CHARACTERS = frozenset(ascii_lowercase + digits + "-_")


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Bounds of fetching. With no `hosts`, every public host is allowed."""

    hosts: tuple[str, ...]
    seconds: float
    at_once: int
    max_urls: int
    max_image_bytes: int
    max_request_bytes: int


@dataclass(frozen=True, slots=True)
class Target:
    """The parts of a URL that are used: a lower-case host name, and the path with its query."""

    host: str
    path: str


def read_url(url: str, hosts: Sequence[str] = ()) -> Target:
    """The target of a URL that may be fetched; raises `InvalidImage`.

    `hosts` are the allowed ones, all if there are none: names, or `.example.com` for all names
    under it.
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
    if not _NOT_IN_AUTHORITY.isdisjoint(parts.netloc) or port not in (None, HTTPS_PORT):
        raise InvalidImage(_UNREADABLE)

    host = parts.hostname or ""
    if not _is_name(host):
        raise InvalidImage(_UNREADABLE)
    if hosts and not any(_matches(host, rule) for rule in hosts):
        raise InvalidImage(_NOT_LISTED)

    query = f"?{parts.query}" if parts.query else ""
    return Target(host, (parts.path or "/") + query)


def is_host_rule(text: str) -> bool:
    """True if a text can be one of `hosts`."""
    return _is_name(text.removeprefix(".")) or (text.startswith(".") and _is_name(f"any{text}"))


def is_public(address: str) -> bool:
    """True if an address, as a resolver writes it, belongs to the public internet."""
    try:
        return is_public_address(ip_address(address))
    except ValueError:
        return False


def _matches(host: str, rule: str) -> bool:
    return host == rule or (rule.startswith(".") and host.endswith(rule))


def _is_name(host: str) -> bool:
    """True if a host is a name of at least two labels, the last of which starts with a letter: no
    spelling of an IP address matches."""
    labels = host.split(".")
    if len(labels) < 2 or len(host) > MAX_HOST:
        return False

    for label in labels:
        if not 0 < len(label) <= MAX_LABEL or not _LABEL_CHARACTERS.issuperset(label):
            return False
    return labels[-1][0] in ascii_lowercase
