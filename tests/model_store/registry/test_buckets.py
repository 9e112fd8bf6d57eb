"""A registry in a bucket of S3: s3fs against moto's server on loopback."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from model_store.registry.channels import history, promote
from model_store.registry.storage import RegistryFailed, Storage, open_storage
from model_store.registry.versions import names, pull, upload, versions
from tests.model_store.registry.published import FILES, make_folder

BUCKET = "models"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket's URL; its address and credentials are in the environment, as s3fs reads them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-told")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    server.stop()


@pytest.fixture
def storage(bucket: str) -> Storage:
    return open_storage(f"{bucket}/{uuid.uuid4().hex}")


def test_what_was_put_is_there(storage: Storage, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # more than one part of an upload
    (tmp_path / "source").write_bytes(content)
    storage.put(tmp_path / "source", "a/b")

    assert storage.size("a/b") == len(content)
    with storage.open("a/b") as file:
        assert file.read() == content
    assert (storage.names(""), storage.names("a"), storage.names("b")) == (["a"], ["b"], [])
    assert (storage.read("a/c", 10), storage.size("a/c")) == (None, None)
    with pytest.raises(RegistryFailed, match="larger than 4 bytes"):
        storage.read("a/b", 4)


def test_of_several_at_once_one_creates_a_file(storage: Storage) -> None:
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda number: storage.create("a", bytes([number])), range(4)))
    assert created.count(True) == 1
    assert storage.read("a", 1) == bytes([created.index(True)])


def test_a_version_is_published_promoted_and_pulled(storage: Storage, tmp_path: Path) -> None:
    version = upload(storage, make_folder(tmp_path / "made"))
    promote(storage, "small", "production", version.digest, after=None)

    assert names(storage) == ["small"]
    assert versions(storage, "small") == [version]
    assert [entry.digest for entry in history(storage, "small", "production")] == [version.digest]

    pulled = pull(storage, version, tmp_path / "cache")
    assert {name: (pulled / name).read_bytes() for name in FILES} == FILES


def test_a_bucket_that_is_not_there_is_one_sentence(bucket: str) -> None:
    with pytest.raises(RegistryFailed, match=r"^s3://missing/x cannot be written \(\w+\)\.$"):
        open_storage("s3://missing/x").create("a", b"")
