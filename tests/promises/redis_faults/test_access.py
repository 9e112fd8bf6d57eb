"""Access to Redis by password, by a user with two commands, by certificates. A refusal is a counted
miss that reveals nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from service.gateway.cache.redis_client import TlsFiles
from service.gateway.cache.redis_tier import RedisTier
from tests.conftest import free_port
from tests.gateway.redis_tiers import Since, holds, key_of, score_of, tier_on, written
from tests.processes import RedisServer

A = [key_of("a")]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def addressed(server: RedisServer, credentials: str) -> str:
    return f"redis://{credentials}@127.0.0.1:{server.port}/0"


async def test_a_password_may_stand_in_the_url_or_beside_it(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "requirepass", "hunter2")
    async with (
        tier_on(addressed(redis, ":hunter2")) as one,
        tier_on(redis.url, client={"password": "hunter2"}) as other,
    ):
        await written(one, "a")
        assert await other.get_many(A) == [score_of("a")]


@pytest.mark.parametrize("user", ["", "gmr"])
async def test_a_password_that_changes_is_followed_by_new_connections(
    redis: RedisServer, tmp_path: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis' password is rotated, and so is its file. Nothing is started anew; a file that is gone
    for a while harms nothing."""
    file = tmp_path / "password"

    def rotate(password: str) -> None:
        if user:
            rules = [
                "on",
                "resetpass",
                f">{password}",
                "resetkeys",
                "~gmr:*",
                "-@all",
                "+mget",
                "+set",
                "+select",
            ]
            redis.command("ACL", "SETUSER", user, *rules)
        else:
            redis.command("CONFIG", "SET", "requirepass", password)
            monkeypatch.setenv("REDISCLI_AUTH", password)
        hang_up()

    def hang_up() -> None:
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    file.write_text("first\n", encoding="utf-8")
    rotate("first")
    url = f"redis://{user}@127.0.0.1:{redis.port}/0" if user else redis.url
    async with tier_on(url, client={"password": "first", "password_file": file}) as tier:
        await written(tier, "a")
        assert await is_known(tier)
        file.unlink()
        hang_up()
        await holds(lambda: is_known(tier))
        rotate("second")
        file.write_text("second", encoding="utf-8")
        await holds(lambda: is_known(tier))


async def is_known(tier: RedisTier) -> bool:
    return await tier.get_many(A) == [score_of("a")]


@pytest.mark.parametrize("credentials", ["", ":wrong", "nobody:hunter2"])
async def test_without_the_right_password_everything_is_a_miss(
    redis: RedisServer, credentials: str
) -> None:
    redis.command("CONFIG", "SET", "requirepass", "hunter2")
    before = Since()
    async with tier_on(addressed(redis, credentials)) as tier:
        await written(tier, "a")
        assert await tier.get_many(A) == [None]

    assert (before("get"), before("set")) == ({"auth": 1}, {"auth": 1})


@pytest.mark.parametrize("database", [0, 3])
async def test_the_user_needs_to_be_allowed_no_more_than_is_documented(
    redis: RedisServer, database: int
) -> None:
    rules = ["on", ">hunter2", "resetkeys", "~gmr:*", "-@all", "+mget", "+set", "+select"]
    assert redis.command("ACL", "SETUSER", "gmr", *rules) == "OK"
    before = Since()
    async with tier_on(f"redis://gmr:hunter2@127.0.0.1:{redis.port}/{database}") as tier:
        await tier.warm_up()
        await written(tier, "a")

        assert await tier.get_many(A) == [score_of("a")]

    assert (before("get"), before("set")) == ({}, {})
    assert redis.command("ACL", "LOG") == ""


async def test_keys_or_commands_that_are_not_allowed_are_misses(redis: RedisServer) -> None:
    redis.command(
        "ACL", "SETUSER", "gmr", "on", ">hunter2", "resetkeys", "~gmr:*", "-@all", "+mget"
    )
    before = Since()
    async with (
        tier_on(addressed(redis, "gmr:hunter2")) as tier,
        tier_on(addressed(redis, "gmr:hunter2"), prefix="x:") as other,
    ):
        await written(tier, "a")
        assert await tier.get_many(A) == await other.get_many(A) == [None]

    assert (before("get"), before("set")) == ({"auth": 1}, {"auth": 1})


@dataclass(frozen=True)
class Secure:
    """A redis-server with TLS that requires a client certificate, and the files for a client."""

    url: str
    ca: Path
    certificate: Path
    key: Path
    foreign_ca: Path

    def client(self, **changed: Path | None) -> dict[str, TlsFiles]:
        files = {"ca": self.ca, "certificate": self.certificate, "key": self.key}
        return {"tls": TlsFiles(**files | changed)}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    authority, foreign = trustme.CA(), trustme.CA()
    for name, issued in (
        ("server", authority.issue_cert("localhost")),
        ("client", authority.issue_cert("gateway")),
    ):
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")

    authority.cert_pem.write_to_path(folder / "ca.pem")
    foreign.cert_pem.write_to_path(folder / "foreign.pem")
    port = free_port()
    files = ("cert-file", "server.pem", "key-file", "server.key", "ca-cert-file", "ca.pem")
    options = [
        f"--tls-{word}" if number % 2 == 0 else str(folder / word)
        for number, word in enumerate(files)
    ]
    with RedisServer(folder, "--tls-port", str(port), "--tls-auth-clients", "yes", *options):
        yield Secure(
            f"rediss://localhost:{port}",
            folder / "ca.pem",
            folder / "client.pem",
            folder / "client.key",
            folder / "foreign.pem",
        )


async def test_tls_with_certificates_on_both_sides(secure: Secure) -> None:
    before = Since()
    async with tier_on(secure.url, client=secure.client()) as tier:
        await written(tier, "a")
        assert await tier.get_many(A) == [score_of("a")]

    assert (before("get"), before("set")) == ({}, {})


REFUSED = {
    "of another authority": ("localhost", {"ca": "foreign_ca"}),
    "for another name": ("127.0.0.1", {}),
    "that the system knows": ("localhost", {"ca": None}),
    "of our own is missing": ("localhost", {"certificate": None, "key": None}),
}


@pytest.mark.parametrize(("host", "changed"), REFUSED.values(), ids=REFUSED)
async def test_without_the_right_certificate_there_is_no_connection(
    secure: Secure, host: str, changed: dict[str, str | None]
) -> None:
    before = Since()
    client = secure.client(
        **{name: getattr(secure, value) if value else None for name, value in changed.items()}
    )
    async with tier_on(secure.url.replace("localhost", host), client=client) as tier:
        assert await tier.get_many(A) == [None]

    assert before("get") == {"connection": 1}


async def test_no_plain_text_is_sent_where_tls_was_asked_for(redis: RedisServer) -> None:
    before = Since()
    async with tier_on(redis.url.replace("redis://", "rediss://")) as tier:
        await written(tier, "a")
        assert await tier.get_many(A) == [None]

    assert set(before("get")) <= {"connection", "timeout"}
    assert sum(before("get").values()) == 1
    assert redis.command("DBSIZE") == "0"
