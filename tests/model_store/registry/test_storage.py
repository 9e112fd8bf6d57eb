"""A storage keeps bytes; each failure is one sentence."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from model_store.registry.storage import (
    LocalStorage,
    RegistryFailed,
    RemoteStorage,
    Storage,
    open_storage,
)
from tests.model_store.disk import file_size_limit
from tests.model_store.registry.published import fresh_memory


def test_what_was_put_is_there(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"one" * 1000)
    storage.put(source, "a/b/c")

    assert storage.read("a/b/c", 3000) == b"one" * 1000
    assert storage.size("a/b/c") == 3000

    with storage.open("a/b/c") as file:
        assert file.read(4) == b"oneo"

    assert (storage.names(""), storage.names("a"), storage.names("a/b")) == (["a"], ["b"], ["c"])


def test_what_is_not_there_is_none(storage: Storage) -> None:
    assert storage.read("a/b", 10) is None
    assert storage.size("a/b") is None
    assert storage.names("a") == []
    with pytest.raises(RegistryFailed), storage.open("a/b") as file:
        file.read()


def test_a_file_over_its_bound_is_refused(storage: Storage) -> None:
    assert storage.create("a", b"12345")
    assert storage.read("a", 5) == b"12345"
    with pytest.raises(RegistryFailed, match="larger than 4 bytes"):
        storage.read("a", 4)


def test_a_file_is_created_once(storage: Storage) -> None:
    assert storage.create("records/1", b"first")
    assert not storage.create("records/1", b"second")
    assert storage.read("records/1", 10) == b"first"
    assert storage.names("records") == ["1"]


def test_of_many_at_once_one_creates_it(root: str) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def create(number: int) -> None:
        storage = open_storage(root)
        barrier.wait()
        for record in range(20):
            if storage.create(f"records/{record}", f"{number}".encode()):
                won.append(record)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert sorted(won) == list(range(20))


def test_a_draft_that_was_left_behind_is_not_listed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    (tmp_path / ".0123456789abcdef.draft").write_bytes(b"half")

    assert storage.create("whole", b"")
    assert storage.names("") == ["whole"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegistryFailed, match=r"^file cannot be written \(.+\)\.$"):
        LocalStorage(tmp_path / "file").create("a", b"")


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "registry")
    assert storage.create("a", b"before")

    (tmp_path / "source").write_bytes(bytes(5000))
    with file_size_limit(1000):
        with pytest.raises(RegistryFailed, match="cannot be written"):
            storage.put(tmp_path / "source", "a")
        with pytest.raises(RegistryFailed, match="cannot be written"):
            storage.create("b", bytes(5000))

    assert storage.read("a", 10) == b"before"
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["a"]


@pytest.mark.parametrize("root", ["", " ", "\0", "nothing://x", "://", "s3//:", "memory:\0//x"])
def test_a_root_that_is_none_is_one_sentence(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryFailed) as caught:
        open_storage(root).create("a", b"") and open_storage(root).names("\0")
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_credentials_in_a_url_are_not_told() -> None:
    with pytest.raises(RegistryFailed) as caught:
        open_storage("nothing://key:secret@host/path?token=secret")
    assert "secret" not in str(caught.value)
    assert RemoteStorage(fresh_memory() + "?token=secret").name.startswith("memory://")
    assert "secret" not in RemoteStorage(fresh_memory() + "?token=secret").name
