"""Whether the files for Redis' TLS can be used is seen before a connection needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from service.gateway.redis_client import Certificates, watch
from service.metrics import FILE_READABLE


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Certificates]:
    authority = trustme.CA()
    own = authority.issue_cert("gateway")
    paths = Certificates(tmp_path / "ca", tmp_path / "own", tmp_path / "key")
    authority.cert_pem.write_to_path(str(paths.authority))
    own.cert_chain_pems[0].write_to_path(str(paths.own))
    own.private_key_pem.write_to_path(str(paths.own_key))
    FILE_READABLE.clear()
    yield paths
    FILE_READABLE.clear()


def readable() -> dict[str, float]:
    (family,) = FILE_READABLE.collect()
    return {each.labels["file"]: each.value for each in family.samples}


def test_what_is_not_named_is_not_watched(files: Certificates) -> None:
    watch(Certificates())
    assert readable() == {}
    watch(Certificates(authority=files.authority))
    assert readable() == {"redis_ca": 1}


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "gone"])
def test_a_file_that_turns_bad_is_seen_and_so_is_its_end(files: Certificates, content: bytes | None) -> None:
    watch(files)
    assert readable() == {"redis_ca": 1, "redis_certificate": 1}
    for path, of in ((files.authority, "redis_ca"), (files.own, "redis_certificate"), (files.own_key, "redis_certificate")):
        assert path
        good = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        assert {name for name, value in readable().items() if not value} == {of}
        path.write_bytes(good)
        assert all(readable().values())
