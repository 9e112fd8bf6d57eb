"""Every special-purpose block of IANA's registries, by its first, last and inner addresses, however
an address is carried."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.media.urls import is_public

NO, YES = False, True
# (block, RFC, "Globally Reachable"; N/A is NO), as the registries list them; iana-ipv4- and
# iana-ipv6-special-registry.
REGISTRY = [
    ("0.0.0.0/8", 791, NO),
    ("0.0.0.0/32", 1122, NO),
    ("10.0.0.0/8", 1918, NO),
    ("100.64.0.0/10", 6598, NO),
    ("127.0.0.0/8", 1122, NO),
    ("169.254.0.0/16", 3927, NO),
    ("172.16.0.0/12", 1918, NO),
    ("192.0.0.0/24", 6890, NO),
    ("192.0.0.0/29", 7335, NO),
    ("192.0.0.8/32", 7600, NO),
    ("192.0.0.9/32", 7723, YES),
    ("192.0.0.10/32", 8155, YES),
    ("192.0.0.170/32", 8880, NO),
    ("192.0.0.171/32", 8880, NO),
    ("192.0.2.0/24", 5737, NO),
    ("192.31.196.0/24", 7535, YES),
    ("192.52.193.0/24", 7450, YES),
    ("192.88.99.0/24", 7526, NO),
    ("192.88.99.2/32", 6751, NO),
    ("192.168.0.0/16", 1918, NO),
    ("192.175.48.0/24", 7534, YES),
    ("198.18.0.0/15", 2544, NO),
    ("198.51.100.0/24", 5737, NO),
    ("203.0.113.0/24", 5737, NO),
    ("240.0.0.0/4", 1112, NO),
    ("255.255.255.255/32", 8190, NO),
    ("::1/128", 4291, NO),
    ("::/128", 4291, NO),
    ("64:ff9b:1::/48", 8215, NO),
    ("100::/64", 6666, NO),
    ("100:0:0:1::/64", 9780, NO),
    ("2001::/23", 2928, NO),
    ("2001::/32", 4380, NO),
    ("2001:1::1/128", 7723, YES),
    ("2001:1::2/128", 8155, YES),
    ("2001:1::3/128", 9665, YES),
    ("2001:2::/48", 5180, NO),
    ("2001:3::/32", 7450, YES),
    ("2001:4:112::/48", 7535, YES),
    ("2001:10::/28", 4843, NO),
    ("2001:20::/28", 7343, YES),
    ("2001:30::/28", 9374, YES),
    ("2001:db8::/32", 3849, NO),
    ("2002::/16", 3056, NO),
    ("2620:4f:8000::/48", 7534, YES),
    ("3fff::/20", 9637, NO),
    ("5f00::/16", 9602, NO),
    ("fc00::/7", 4193, NO),
    ("fe80::/10", 4291, NO),
]
STRICTER = {
    "192.0.0.9/32": "answered by the nearest device, one of the own network",
    "192.0.0.10/32": "the same",
    "2001:1::1/128": "the same",
    "2001:1::2/128": "the same",
    "2001:1::3/128": "the same",
    "2001:20::/28": "identifiers, which are not routed",
    "2001:30::/28": "the same",
}
"""Blocks that are reachable by the registry, and not dialled all the same."""
BEYOND = [
    "224.0.0.0/4",
    "168.63.129.16/32",
    "fec0::/10",
    "ff00::/8",
    "4000::/3",
    "1000::/4",
    "::/96",
    "::ffff:0:0:0/96",
]
"""Not in these registries, and not public either."""

NETWORKS = [
    (ip_network(block), reachable and block not in STRICTER) for block, _, reachable in REGISTRY
]
NETWORKS += [(ip_network(block), NO) for block in BEYOND]


def expected(address: IPv4Address | IPv6Address) -> bool:
    """The answer of the most specific block."""
    within = [
        each for each in NETWORKS if each[0].version == address.version and address in each[0]
    ]
    return max(within, key=lambda each: each[0].prefixlen)[1] if within else YES


@pytest.mark.parametrize("network", [each[0] for each in NETWORKS], ids=str)
def test_each_block_is_public_if_the_registry_says_so(network: IPv4Network | IPv6Network) -> None:
    for address in (
        network[0],
        network[1 % network.num_addresses],
        network[network.num_addresses // 2],
        network[-1],
    ):
        assert is_public(str(address)) is expected(address), address


@given(
    st.sampled_from(NETWORKS).flatmap(
        lambda each: st.integers(0, each[0].num_addresses - 1).map(lambda at: each[0][at])
    )
)
def test_any_address_of_any_block(address: IPv4Address | IPv6Address) -> None:
    assert is_public(str(address)) is expected(address)


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_any_address_of_ipv4_is_judged_alike_however_it_is_carried(address: IPv4Address) -> None:
    public, number = expected(address), int(address)
    assert is_public(str(address)) is public
    for prefix in (0xFFFF << 32, 0x0064_FF9B << 96):  # mapped, and translated by a public prefix
        assert is_public(str(IPv6Address(prefix | number))) is public
    teredo, six_to_four = (
        (0x2001_0000 << 96) | (number ^ 0xFFFF_FFFF),
        (0x2002 << 112) | (number << 80),
    )
    compatible, local_translation = number, (0x0064_FF9B_0001 << 80) | number
    for hidden in (teredo, six_to_four, compatible, local_translation):
        assert not is_public(str(IPv6Address(hidden)))


@pytest.mark.parametrize(
    "address",
    [
        "192.0.0.192",
        "3fff::1",
        "169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:192.0.0.192",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_clouds_metadata_is_never_dialled(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "93.184.216.34",
        "2606:4700::1111",
        "2a00:1450::8a",
        "2001:200::1",
        "2400::1",
    ],
)
def test_the_rest_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)
