"""Addresses that must never be dialled, in every spelling that some parser takes for one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

PUBLIC_V4 = IPv4Network("93.184.216.0/24")
INNER_V4 = [
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "255.255.255.255/32",
    )
]


def spellings(address: IPv4Address) -> list[str]:
    """An IPv4 address as a host of a URL: dotted, short, octal, hexadecimal, one number, and inside
    IPv6."""
    number = int(address)
    one, two, three, four = address.packed
    v6 = [
        f"::ffff:{address}",
        f"::ffff:{number >> 16:x}:{number & 0xFFFF:x}",
        f"::{address}",
        f"64:ff9b::{address}",
    ]
    return [
        str(address),
        f"{address}.",
        f"{one}.{number & 0xFFFFFF}",
        f"{one}.{two}.{number & 0xFFFF}",
        f"0x{one:x}.{two}.{three}.{four}",
        f"0x{one:x}.{number & 0xFFFFFF}",
        f"0{one:o}.0{two:o}.0{three:o}.0{four:o}",
        f"{one}.{two}.{three}.0x{four:x}",
        f"000{one:o}.{two}.{three}.{four}",
        str(number),
        f"0x{number:x}",
        f"0X{number:X}",
        f"0{number:o}",
        f"{number}.",
        str(address).replace(".", "%2e"),
        str(address).replace(".", "。"),
        *(f"[{each}]" for each in v6),
        *v6,
    ]
