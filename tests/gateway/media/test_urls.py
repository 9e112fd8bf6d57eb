"""URLs are read as host and path, and no spelling of an address that is not public passes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidImage
from service.gateway.media.urls import MAX_URL, Target, is_host_rule, is_public, read_url
from tests.gateway.addresses import INNER_V4, PUBLIC_V4, spellings

INNER_V6 = [
    IPv6Network(each)
    for each in (
        "::/128",
        "::1/128",
        "100::/64",
        "64:ff9b:1::/48",
        "2001:db8::/32",
        "2001::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("example.com", "/")),
        (
            "HTTPS://Example.COM:443/a/../b%20c.png?x=1&y=/#part",
            Target("example.com", "/a/../b%20c.png?x=1&y=/"),
        ),
        ("https://example.com?x", Target("example.com", "/?x")),
        (
            "https://xn--bcher-kva.example/é".replace("é", "%C3%A9"),
            Target("xn--bcher-kva.example", "/%C3%A9"),
        ),
        ("https://a_b.example.com//evil.example", Target("a_b.example.com", "//evil.example")),
        ("https://example.com/@127.0.0.1:80/", Target("example.com", "/@127.0.0.1:80/")),
    ],
)
def test_a_url_is_its_host_and_its_path(url: str, target: Target) -> None:
    assert read_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png",
        "https:example.com",
        "https:/example.com",
        "https:///example.com",
        "https://",
        "https:\\\\example.com",
        "https://example.com\\@127.0.0.1/",
        "https://127.0.0.1\\.example.com/",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://example.com:80/",
        "https://example.com:8443/",
        "https://example.com:99999999/",
        "https://example.com:+443/",
        "https://example.com:x/",
        "https://example.com./",
        "https://example..com/",
        "https://.example.com/",
        "https://localhost/",
        "https://metadata/",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nHost: evil",
        "https://exam\tple.com/",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://exämple.com/",
        "https://example.com/ä",
        "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "https://127。0。0。1/",
        "https://ex%61mple.com/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[v1.x]/",
        "https://[::1",
        "https://example.com]/",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 130 + "com/",
        "https://example.com/" + "a" * MAX_URL,
        " https://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
    ],
)
def test_what_is_not_plainly_a_public_name_over_https_is_refused(url: str) -> None:
    with pytest.raises(InvalidImage):
        read_url(url)


@given(
    st.sampled_from([*INNER_V4, PUBLIC_V4]).flatmap(
        lambda net: st.integers(0, net.num_addresses - 1).map(lambda at: net[at])
    ),
    st.data(),
)
def test_no_spelling_of_an_address_is_a_name(address: IPv4Address, data: st.DataObject) -> None:
    spelling = data.draw(st.sampled_from(spellings(address)))
    with pytest.raises(InvalidImage):
        read_url(f"https://{spelling}/")


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        target = read_url(f"https://{text}")
    except InvalidImage:
        return

    assert target.host.isascii()
    assert target.host == target.host.lower()
    assert not set(target.host) & set("@:/\\[]%?# ")
    assert target.host.rpartition(".")[2][0].isalpha()
    assert target.path.startswith("/")
    assert not set(target.path) & set(" \r\n\t\\")


@given(
    st.sampled_from(INNER_V4).flatmap(
        lambda net: st.integers(0, net.num_addresses - 1).map(lambda at: net[at])
    )
)
def test_an_inner_address_is_never_public_however_it_is_carried(address: IPv4Address) -> None:
    number = int(address)
    carried = (0xFFFF << 32, 0x0064_FF9B << 96, 0)
    tunnelled = ((0x2002 << 112) | (number << 80), (0x2001_0000 << 96) | (number ^ 0xFFFF_FFFF))
    for each in (
        address,
        *(IPv6Address(prefix | number) for prefix in carried),
        *map(IPv6Address, tunnelled),
    ):
        assert not is_public(str(each))


@given(
    st.sampled_from(INNER_V6).flatmap(
        lambda net: st.integers(0, net.num_addresses - 1).map(lambda at: net[at])
    )
)
def test_an_inner_address_of_ipv6_is_not_public(address: IPv6Address) -> None:
    assert not is_public(str(address))
    assert not is_public(f"{address}%eth0")


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "2606:4700::6810:84e5", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address", ["", "x", "127.1", "0x7f000001", "2130706433", "08.8.8.8", "8.8.8.8/32", "8.8.8.8 "]
)
def test_what_no_resolver_writes_is_no_address(address: str) -> None:
    assert not is_public(address)


def test_a_list_of_hosts_allows_those_and_no_others() -> None:
    hosts = ("img.example.com", ".cdn.example")
    for good in ("img.example.com", "IMG.example.com", "a.cdn.example", "a.b.cdn.example"):
        assert read_url(f"https://{good}/", hosts).host == good.lower()
    for bad in (
        "example.com",
        "x.img.example.com",
        "ximg.example.com",
        "cdn.example",
        "xcdn.example",
        "img.example.com.evil.com",
    ):
        with pytest.raises(InvalidImage):
            read_url(f"https://{bad}/", hosts)


@pytest.mark.parametrize(
    ("rule", "fine"),
    [
        ("img.example.com", True),
        (".example.com", True),
        (".com", True),
        ("example.com.", False),
        ("*.example.com", False),
        ("https://example.com", False),
        ("Example.com", False),
        ("10.0.0.1", False),
        ("", False),
        (".", False),
    ],
)
def test_a_rule_is_a_name_or_what_names_end_in(rule: str, fine: bool) -> None:
    assert is_host_rule(rule) is fine


def test_the_tables_of_this_test_are_what_they_say() -> None:
    assert all(isinstance(each, IPv4Network) for each in INNER_V4)
    assert is_public(str(PUBLIC_V4[1]))
