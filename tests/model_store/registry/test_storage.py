"""A place keeps bytes; what it cannot do ends in one sentence."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from model_store.registry.storage import LocalPlace, RemotePlace, Storage, StoreFailed, place_of
from tests.model_store.registry.published import fresh_memory, no_file_over


def test_what_was_put_is_there(place: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"one" * 1000)
    place.put(source, "a/b/c")
    assert place.read("a/b/c", 3000) == b"one" * 1000
    assert place.size("a/b/c") == 3000
    with place.open("a/b/c") as file:
        assert file.read(4) == b"oneo"
    assert (place.names(""), place.names("a"), place.names("a/b")) == (["a"], ["b"], ["c"])


def test_what_is_not_there_is_none(place: Storage) -> None:
    assert place.read("a/b", 10) is None
    assert place.size("a/b") is None
    assert place.names("a") == []
    with pytest.raises(StoreFailed), place.open("a/b") as file:
        file.read()


def test_a_file_over_its_bound_is_refused(place: Storage) -> None:
    assert place.create("a", b"12345")
    assert place.read("a", 5) == b"12345"
    with pytest.raises(StoreFailed, match="larger than 4 bytes"):
        place.read("a", 4)


def test_a_file_is_created_once(place: Storage) -> None:
    assert place.create("records/1", b"first")
    assert not place.create("records/1", b"second")
    assert place.read("records/1", 10) == b"first"
    assert place.names("records") == ["1"]


def test_of_many_at_once_one_creates_it(root: str) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def create(number: int) -> None:
        place = place_of(root)
        barrier.wait()
        for record in range(20):
            if place.create(f"records/{record}", f"{number}".encode()):
                won.append(record)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_a_draft_that_was_left_behind_is_not_listed(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    (tmp_path / ".0123456789abcdef.draft").write_bytes(b"half")
    assert place.create("whole", b"")
    assert place.names("") == ["whole"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match=r"^file cannot be written \(.+\)\.$"):
        LocalPlace(tmp_path / "file").create("a", b"")


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path / "registry")
    assert place.create("a", b"before")
    (tmp_path / "source").write_bytes(bytes(5000))
    with no_file_over(1000):
        with pytest.raises(StoreFailed, match="cannot be written"):
            place.put(tmp_path / "source", "a")
        with pytest.raises(StoreFailed, match="cannot be written"):
            place.create("b", bytes(5000))
    assert place.read("a", 10) == b"before"
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["a"]


@pytest.mark.parametrize("root", ["", " ", "\0", "nothing://x", "://", "s3//:", "memory:\0//x"])
def test_a_root_that_is_none_is_one_sentence(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreFailed) as caught:
        place_of(root).create("a", b"") and place_of(root).names("\0")
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_credentials_in_a_url_are_not_told() -> None:
    with pytest.raises(StoreFailed) as caught:
        place_of("nothing://key:secret@host/path?token=secret")
    assert "secret" not in str(caught.value)
    assert RemotePlace(fresh_memory() + "?token=secret").name.startswith("memory://")
    assert "secret" not in RemotePlace(fresh_memory() + "?token=secret").name
