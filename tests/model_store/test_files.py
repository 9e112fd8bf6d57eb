"""A name holds the old file or the whole new one, whatever ends the writer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model_store.files import (
    atomic_file,
    atomic_path,
    create_file,
    sha256,
    sha256_each,
    sync,
    write_atomically,
)
from tests.model_store.disk import file_size_limit


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    assert content_of(tmp_path) == {"file": b"new"}


def test_an_open_reader_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old"


def test_a_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("writer", [atomic_file, atomic_path])
def test_an_exception_leaves_the_old_file_and_no_draft(tmp_path: Path, writer: object) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), writer(path):  # type: ignore[operator]
        raise KeyError
    assert content_of(tmp_path) == {"file": b"old"}


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with file_size_limit(1000), pytest.raises(OSError, match="too large"):
        write_atomically(path, bytes(1001))
    with file_size_limit(1000), pytest.raises(OSError, match="too large"):
        create_file(tmp_path / "another", bytes(1001))
    assert content_of(tmp_path) == {"file": b"old"}


def test_a_killed_writer_leaves_the_old_file_and_a_hidden_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from model_store.files import atomic_file\n"
        "with atomic_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False, env=os.environ)

    found = content_of(tmp_path)
    assert found.pop("file") == b"old"
    ((name, content),) = found.items()
    assert name.startswith(".file.")
    assert name.endswith(".draft")
    assert content == b"half"


def test_a_library_may_write_the_draft_itself(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "file") as draft:
        draft.write_bytes(b"new")
    with atomic_path(tmp_path / "link", sync_file=False) as draft:
        draft.symlink_to(tmp_path / "file")
    assert content_of(tmp_path) == {"file": b"new", "link": b"new"}
    assert (tmp_path / "link").is_symlink()


def test_the_longest_name_of_a_file_has_a_draft_too(tmp_path: Path) -> None:
    for name in ("a" * 255, "é" * 127, "𝄞" * 63):
        write_atomically(tmp_path / name, name.encode())
        assert (tmp_path / name).read_bytes() == name.encode()


def test_of_many_writers_one_creates_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    created: list[int] = []

    def create(number: int) -> None:
        if create_file(path, str(number).encode() * 1000):
            created.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = created
    assert content_of(tmp_path) == {"file": str(winner).encode() * 1000}


def test_a_digest_is_that_of_the_whole_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    write_atomically(tmp_path / "file", content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_files_and_folders_can_be_synced(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    sync(tmp_path / "file")
    sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "missing")


def test_many_files_are_hashed_in_order_as_one_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(23)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (100_000 * (number % 5)))
    assert list(sha256_each(paths)) == [sha256(path) for path in paths]
    assert list(sha256_each([])) == []


def test_the_first_file_that_cannot_be_read_is_the_error(tmp_path: Path) -> None:
    whole, gone, last = tmp_path / "whole", tmp_path / "gone", tmp_path / "last"
    whole.write_bytes(b"w")
    last.write_bytes(b"l")
    digests = sha256_each([whole, gone, last, tmp_path / "gone too"])
    assert next(digests) == sha256(whole)
    with pytest.raises(FileNotFoundError) as refusal:
        next(digests)
    assert refusal.value.filename == str(gone)
