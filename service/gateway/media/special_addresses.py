"""Blocks of addresses with a special purpose, each public or not.

They are those of IANA's "IPv4 Special-Purpose Address Registry" and "IPv6 Special-Purpose Address
Registry" (RFC 6890, as of 2025-10). They are written out because Python's `ipaddress` lags behind
the registries: in 3.11, most of 192.0.0.0/24 and all of 3fff::/20 are public. The module depends on
addresses alone. Invariant: the most specific block decides, and an address in no block is public.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Network = IPv4Network | IPv6Network

_IANA_IPV4: dict[str, bool] = {
    "0.0.0.0/8": False,  # "this network"
    "10.0.0.0/8": False,  # private use
    "100.64.0.0/10": False,  # shared by carriers, and some clouds' metadata
    "127.0.0.0/8": False,  # loopback
    "169.254.0.0/16": False,  # link local, and most clouds' metadata
    "172.16.0.0/12": False,  # private use
    "192.0.0.0/24": False,  # IETF protocol assignments, and a cloud's metadata (192.0.0.192)
    "192.0.0.9/32": True,  # Port Control Protocol anycast
    "192.0.0.10/32": True,  # TURN anycast
    "192.0.2.0/24": False,  # documentation
    "192.31.196.0/24": True,  # AS112
    "192.52.193.0/24": True,  # AMT
    "192.88.99.0/24": False,  # 6to4 relay anycast, deprecated
    "192.168.0.0/16": False,  # private use
    "192.175.48.0/24": True,  # AS112 direct delegation
    "198.18.0.0/15": False,  # benchmarking
    "198.51.100.0/24": False,  # documentation
    "203.0.113.0/24": False,  # documentation
    "240.0.0.0/4": False,  # reserved, with limited broadcast
}
_IANA_IPV6: dict[str, bool] = {
    "::/128": False,  # unspecified
    "::1/128": False,  # loopback
    "::ffff:0:0/96": False,  # IPv4-mapped
    "64:ff9b::/96": True,  # IPv4-IPv6 translation
    "64:ff9b:1::/48": False,  # IPv4-IPv6 translation for local use
    "100::/64": False,  # discard only
    "100:0:0:1::/64": False,  # dummy prefix
    "2001::/23": False,  # IETF protocol assignments, with Teredo, benchmarking and ORCHID
    "2001:1::1/128": True,  # Port Control Protocol anycast
    "2001:1::2/128": True,  # TURN anycast
    "2001:1::3/128": True,  # DNS-SD service registration anycast
    "2001:3::/32": True,  # AMT
    "2001:4:112::/48": True,  # AS112
    "2001:20::/28": True,  # ORCHIDv2
    "2001:30::/28": True,  # drone remote ID
    "2001:db8::/32": False,  # documentation
    "2002::/16": False,  # 6to4
    "2620:4f:8000::/48": True,  # AS112 direct delegation
    "3fff::/20": False,  # documentation
    "5f00::/16": False,  # segment routing
    "fc00::/7": False,  # unique local
    "fe80::/10": False,  # link local
}
_EXCEPTIONS: dict[str, bool] = {
    "168.63.129.16/32": False,  # a cloud's services for its own machines
    "224.0.0.0/4": False,  # multicast
    "::/3": False,  # global unicast is 2000::/3 alone (IANA's "IPv6 Address Space")
    "4000::/2": False,
    "8000::/1": False,
    # anycast to the nearest device of a kind, which may be in the own network
    "192.0.0.9/32": False,
    "192.0.0.10/32": False,
    "2001:1::1/128": False,
    "2001:1::2/128": False,
    "2001:1::3/128": False,
    # identifiers in the form of addresses, which nothing listens on
    "2001:20::/28": False,
    "2001:30::/28": False,
}
"""Blocks that are not in the registries, or that are public there and not here."""


def _by_length(*tables: dict[str, bool]) -> list[tuple[Network, bool]]:
    """The tables' blocks, the most specific first; where two tables have a block, the last one
    decides."""
    merged: dict[str, bool] = {}
    for table in tables:
        merged |= table

    blocks: list[tuple[Network, bool]] = []
    for text, public in merged.items():
        network = IPv6Network(text) if ":" in text else IPv4Network(text)
        blocks.append((network, public))
    return sorted(blocks, key=lambda block: block[0].prefixlen, reverse=True)


_BLOCKS = _by_length(_IANA_IPV4, _IANA_IPV6, _EXCEPTIONS)
_MAPPED = IPv6Network("::ffff:0:0/96")
_TRANSLATED = IPv6Network("64:ff9b::/96")


def is_public_address(address: IPv4Address | IPv6Address) -> bool:
    """True if an address belongs to the public internet.

    An IPv4 address that is mapped or translated into IPv6 is judged as itself, because a connection
    goes to it. An address in a tunnel (6to4, Teredo) is never public, because the tunnel may end
    anywhere.
    """
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _TRANSLATED):
        return is_public_address(IPv4Address(int(address) & 0xFFFF_FFFF))

    for network, public in _BLOCKS:
        if address.version == network.version and address in network:
            return public
    return True
