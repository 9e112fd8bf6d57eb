"""Files that appear whole or not at all, and the SHA-256 of a file.

Does not depend on what a file holds, and raises `OSError` alone: callers turn it into their own
errors. Invariant: a name holds the old file or the whole new one, also after a full disk or a
killed process. A killed process leaves a hidden draft behind, which no reader takes for a file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_HASHING_THREADS = 4
_NAME_CHARS = 48
"""Characters of a file's name in that of its draft: file systems end names at 255 bytes."""


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a draft for writing; it replaces `path` when the block ends without an exception.

    The draft lies in the same folder, which must exist, and is on the disk before it takes the
    name: a crash of the machine cannot leave an empty file under it.
    """
    with atomic_path(path, sync_file=False) as draft, draft.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path, *, sync_file: bool = True) -> Iterator[Path]:
    """Give a draft's path to a library that writes files itself; the draft replaces `path` when the
    block ends without an exception.

    With `sync_file`, the draft is on the disk before it takes the name.
    """
    with _draft(path) as draft:
        yield draft
        if sync_file:
            sync(draft)
        draft.replace(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by `content`."""
    with atomic_file(path) as file:
        file.write(content)


def check_replaceable(path: Path) -> None:
    """Raise `OSError` where a draft of `path` cannot be written; `path` itself stays as it is."""
    with _draft(path) as draft:
        draft.touch(exist_ok=False)


def create_file(path: Path, content: bytes) -> bool:
    """Write a file unless there is one already; returns whether it was written.

    Of several writers at once exactly one succeeds. A hard link appears whole or not at all, so
    this needs no lock that a killed process could leave behind.
    """
    with _draft(path) as draft:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    return True


def sync(path: Path) -> None:
    """Wait until the disk holds a file's content, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_each(paths: Sequence[Path]) -> Iterator[str]:
    """The SHA-256 of each file, in order, where a core hashes less than a disk reads: several files
    are read at once.

    Raises the `OSError` of the first file that cannot be read. The threads do not outlive the
    process, and end after their current files where the caller stops early.
    """
    digests: list[Future[str]] = [Future() for _ in paths]
    waiting = iter(zip(paths, digests, strict=True))
    taking, stopped = threading.Lock(), threading.Event()

    def work() -> None:
        while not stopped.is_set():
            with taking:
                path, digest = next(waiting, (None, None))
            if path is None or digest is None:
                return
            try:
                digest.set_result(sha256(path))
            except OSError as error:
                digest.set_exception(error)

    for _ in range(min(_HASHING_THREADS, os.cpu_count() or 1, len(paths))):
        threading.Thread(target=work, name="hashing", daemon=True).start()
    try:
        for digest in digests:
            yield digest.result()
    finally:
        stopped.set()


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """An unused hidden name beside `path`; a file of that name is removed at the end."""
    draft = path.with_name(f".{path.name[:_NAME_CHARS]}.{secrets.token_hex(8)}.draft")
    try:
        yield draft
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
