"""A URL is read as the address of a Redis, or refused with a message that repeats no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from service.gateway.cache.redis_url import BadAddress, RedisAddress, read_address
from service.gateway.settings import GatewaySettings

SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress("single", (("h", 6379),), tls=False)),
        ("redis://h:1/", RedisAddress("single", (("h", 1),), tls=False)),
        ("rediss://u:p@h:1/3", RedisAddress("single", (("h", 1),), True, "u", "p", database=3)),
        ("redis://:p%40%2F%3A@h", RedisAddress("single", (("h", 6379),), False, None, "p@/:")),
        ("redis://u:a@b:c@h", RedisAddress("single", (("h", 6379),), False, "u", "a@b:c")),
        ("redis://[::1]:7/0", RedisAddress("single", (("::1", 7),), tls=False)),
        ("redis://[::1]", RedisAddress("single", (("::1", 6379),), tls=False)),
        (
            "redis+sentinel://u:p@a,b:1/mymaster/2",
            RedisAddress("sentinel", (("a", 26379), ("b", 1)), False, "u", "p", "mymaster", 2),
        ),
        ("rediss+sentinel://a/m", RedisAddress("sentinel", (("a", 26379),), True, service="m")),
        ("redis+cluster://a:1,b", RedisAddress("cluster", (("a", 1), ("b", 6379)), tls=False)),
        ("rediss+cluster://a/0", RedisAddress("cluster", (("a", 6379),), tls=True)),
    ],
)
def test_urls(url: str, address: RedisAddress) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "REDIS://h",
        "redis+http://h",
        "redis+://h",
        "redis://",
        "redis:///0",
        "redis://a,b",
        "redis://h:port",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:99999999999999999999",
        "redis://h:٣",
        "redis://h:-1",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/65536",
        "redis://h/0/1",
        "redis://h?db=1",
        "redis://h#x",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel://h/m/x",
        "redis+sentinel://a,,b/m",
        "redis+cluster://h/1",
        "redis+cluster://" + ",".join(["h"] * 65),
    ],
)
def test_what_names_no_redis_is_refused(url: str) -> None:
    with pytest.raises(BadAddress):
        read_address(url)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=30),
    st.sampled_from(
        ["", "redis://", "rediss+sentinel://", "redis+cluster://", "redis://u:hunter2@"]
    ),
)
def test_any_text_is_read_or_refused(text: str, start: str) -> None:
    try:
        address = read_address(start + text)
    except BadAddress as refusal:
        said, nodes = str(refusal), tuple[tuple[str, int], ...]()
    else:
        said, nodes = repr(address), address.nodes

    assert "hunter2" not in said
    assert all(host and 1 <= port <= 65_535 for host, port in nodes)


def refused(**settings: object) -> dict[str, str]:
    """The messages that settings are refused with, by name."""
    with pytest.raises(ValidationError) as error:
        GatewaySettings(**settings)
    return {str(each["loc"][0]): each["msg"] for each in error.value.errors()}


def test_a_password_is_never_told() -> None:
    read = GatewaySettings(
        redis_url=SecretStr("redis://u:hunter2@h"), cache_key_secret=SecretStr(SECRET)
    )
    assert "hunter2" not in repr(read) + str(read.redis_address()) + repr(read.redis_address())
    said = refused(redis_url="redis://u:hunter2@h:x", cache_key_secret="short")
    assert set(said) == {"redis_url"}
    assert "hunter2" not in str(said)


@pytest.mark.parametrize(
    "secret", [{}, {"cache_key_secret": ""}, {"cache_key_secret": SECRET[:-1]}]
)
def test_gateways_that_share_a_redis_must_share_a_secret(secret: dict[str, str]) -> None:
    assert "secret" in refused(redis_url="redis://h", **secret)["cache_key_secret"]


def test_without_redis_no_secret_is_needed() -> None:
    assert GatewaySettings().redis_address() is None
    assert GatewaySettings(redis_url=SecretStr("")).redis_address() is None


def test_secrets_may_be_in_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "secret").write_text(SECRET + "\n")
    read = GatewaySettings(
        redis_url=SecretStr("redis://h"),
        redis_password_file=tmp_path / "password",
        cache_key_secret_file=tmp_path / "secret",
    )

    assert read.redis_password
    assert read.cache_key_secret
    assert (read.redis_password.get_secret_value(), read.cache_key_secret.get_secret_value()) == (
        "hunter2",
        SECRET,
    )
    assert "hunter2" not in repr(read)


def test_a_secret_is_not_set_twice(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    assert set(refused(cache_key_secret_file=tmp_path / "secret", cache_key_secret=SECRET)) == {
        "cache_key_secret"
    }


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "nowhere", tmp_path, tmp_path / "binary"):
        said = refused(redis_ca_file=file, redis_password_file=file, cache_key_secret_file=file)
        assert set(said) == {"redis_ca_file", "redis_password_file", "cache_key_secret_file"}
        assert str(tmp_path) not in str(said)


def test_a_prefix_does_not_tell_a_cluster_where_keys_belong() -> None:
    assert set(refused(redis_key_prefix="{a}")) == {"redis_key_prefix"}
