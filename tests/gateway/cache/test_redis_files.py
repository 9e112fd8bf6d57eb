"""A gauge shows whether the files for Redis can be used, before a connection needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from redis.asyncio import RedisCluster

from service.gateway.cache.redis_client import TlsFiles, export_readability, open_client
from service.gateway.cache.redis_url import read_address
from service.observability.metrics import FILE_READABLE


@pytest.fixture
def files(tmp_path: Path) -> Iterator[TlsFiles]:
    authority = trustme.CA()
    own = authority.issue_cert("gateway")
    paths = TlsFiles(tmp_path / "ca", tmp_path / "own", tmp_path / "key")
    authority.cert_pem.write_to_path(str(paths.ca))
    own.cert_chain_pems[0].write_to_path(str(paths.certificate))
    own.private_key_pem.write_to_path(str(paths.key))
    FILE_READABLE.clear()
    yield paths
    FILE_READABLE.clear()


def readable() -> dict[str, float]:
    (family,) = FILE_READABLE.collect()
    return {each.labels["file"]: each.value for each in family.samples}


def test_what_is_not_named_is_not_watched(files: TlsFiles) -> None:
    export_readability(TlsFiles())
    assert readable() == {}
    export_readability(TlsFiles(ca=files.ca))
    assert readable() == {"redis_ca": 1}


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "gone"])
def test_a_file_that_turns_bad_is_seen_and_so_is_its_end(
    files: TlsFiles, content: bytes | None
) -> None:
    export_readability(files)
    assert readable() == {"redis_ca": 1, "redis_certificate": 1}
    for path, of in (
        (files.ca, "redis_ca"),
        (files.certificate, "redis_certificate"),
        (files.key, "redis_certificate"),
    ):
        assert path
        good = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)

        assert {name for name, value in readable().items() if not value} == {of}
        path.write_bytes(good)
        assert all(readable().values())


def test_a_password_file_is_watched_too(tmp_path: Path, files: TlsFiles) -> None:
    file = tmp_path / "password"
    export_readability(TlsFiles(), file)
    for content, usable in ((None, 0), (b"secret", 1), (b"\xff\xfe", 0), (b"", 1)):
        if content is not None:
            file.write_bytes(content)
        assert readable() == {"redis_password": usable}


@pytest.mark.parametrize(
    "url",
    [
        "redis://user@h",
        "redis+sentinel://user@h:26379/master/0",
        "redis+cluster://user@h:6379",
        "redis://h",
    ],
)
def test_every_kind_of_client_reads_the_password_at_each_connection(
    url: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n", encoding="utf-8")
    client = open_client(read_address(url), password="first", password_file=file)
    options = (
        client.connection_kwargs
        if isinstance(client, RedisCluster)
        else client.connection_pool.connection_kwargs
    )
    shown = options["credential_provider"]
    user = ("user",) if "user" in url else ()
    for content, password in (
        ("first", "first"),
        ("second\n", "second"),
        ("", "second"),
        (None, "second"),
        ("third", "third"),
    ):
        file.unlink(missing_ok=True) if content is None else file.write_text(
            content, encoding="utf-8"
        )
        assert shown.get_credentials() == (*user, password)
