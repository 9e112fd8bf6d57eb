"""Hosts that are this machine.

Depends on the syntax of addresses alone. Invariant: no name is resolved.
"""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """True if a host is this machine: no other one can reach it, nor a proxy."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
