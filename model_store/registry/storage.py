"""Where a registry lies: a local folder, or anything that fsspec has a URL for, such as S3 or GCS.

Knows bytes and paths, nothing of checkpoints. Invariant: a file that can be seen is complete,
whatever happened while it was written; and what a store's own library raises ends here, as one
sentence without credentials.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import fsspec

from model_store.files import atomic_file, create_file
from model_store.manifest import CheckpointUnusable

MAX_NAMES = 100_000
_BLOCK = 2**22
_IN_PROCESS = threading.Lock()  # fsspec's memory store looks first and writes then


class StoreFailed(CheckpointUnusable):
    """A registry that cannot be read or written; its text is one sentence for the operator."""


class Storage(Protocol):
    """Paths are relative, with `/` between their parts; every method raises `StoreFailed`."""

    name: str
    """What the place is called in messages: no credentials."""

    def names(self, path: str) -> list[str]:
        """What lies directly under a path, in order; nothing where there is no such path."""

    def read(self, path: str, limit: int) -> bytes | None:
        """A file of at most `limit` bytes; None where there is none."""

    def size(self, path: str) -> int | None:
        """A file's size in bytes; None where there is none."""

    def open(self, path: str) -> IO[bytes]:
        """A file to be read in pieces."""

    def put(self, file: Path, path: str) -> None:
        """Copy a local file to a path, in place of what is there."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file unless there is one already; says whether it was written."""


def place_of(root: str) -> Storage:
    """The place that a path or URL names; raises `StoreFailed` where fsspec does not know it."""
    if "\0" in root or not root.strip():
        raise StoreFailed("The registry has no place: give a folder or a URL.")
    if root.startswith("file://"):
        return LocalPlace(Path(root.removeprefix("file://")))
    return RemotePlace(root) if "://" in root else LocalPlace(Path(root).expanduser())


class LocalPlace:
    """A folder on this machine, or on a file system that several machines share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = folder.name or "the registry"

    def names(self, path: str) -> list[str]:
        with self._failing("listed"):
            try:
                found = sorted(os.listdir(self._folder / path))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return _bounded(found, self.name)

    def read(self, path: str, limit: int) -> bytes | None:
        with self._failing("read"):
            try:
                with (self._folder / path).open("rb") as file:
                    return _within(file.read(limit + 1), limit, path)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def size(self, path: str) -> int | None:
        with self._failing("read"):
            try:
                return (self._folder / path).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open(self, path: str) -> IO[bytes]:
        with self._failing("read"):
            return (self._folder / path).open("rb")

    def put(self, file: Path, path: str) -> None:
        with self._failing("written"):
            target = self._target(path)
            with file.open("rb") as source, atomic_file(target) as copy:
                shutil.copyfileobj(source, copy, _BLOCK)

    def create(self, path: str, content: bytes) -> bool:
        with self._failing("written"):
            return create_file(self._target(path), content)

    def _target(self, path: str) -> Path:
        """The file that a path names, its folder made where it is missing."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFailed(
                f"{self.name} cannot be {verb} ({error.strerror or type(error).__name__})."
            ) from None
        except ValueError:
            raise StoreFailed(f"{self.name} cannot be {verb}: its path is none.") from None


class RemotePlace:
    """A bucket, or whatever else fsspec reaches by a URL. Its objects appear whole, as those of S3
    and GCS do."""

    def __init__(self, url: str) -> None:
        self.name = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        # an unknown kind of URL, or one whose library is not there
        except (ImportError, ValueError):
            kind = url.partition(":")[0]
            raise StoreFailed(
                f"{self.name} cannot be reached: fsspec has nothing for {kind}:// (s3fs? gcsfs?)."
            ) from None
        except Exception as error:  # as below
            raise StoreFailed(f"{self.name} cannot be reached ({type(error).__name__}).") from None

    def names(self, path: str) -> list[str]:
        with self._failing("listed"):
            try:
                found = self._files.ls(self._at(path), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return _bounded(
            sorted({str(each).rstrip("/").rpartition("/")[2] for each in found}), self.name
        )

    def read(self, path: str, limit: int) -> bytes | None:
        with self._failing("read"):
            try:
                with self._files.open(self._at(path), "rb") as file:
                    return _within(file.read(limit + 1), limit, path)
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        with self._failing("read"):
            try:
                return int(self._files.info(self._at(path))["size"])
            except FileNotFoundError:
                return None

    def open(self, path: str) -> IO[bytes]:
        with self._failing("read"):
            file: IO[bytes] = self._files.open(self._at(path), "rb", block_size=_BLOCK)
            return file

    def put(self, file: Path, path: str) -> None:
        with self._failing("written"):
            self._files.put_file(str(file), self._at(path))

    def create(self, path: str, content: bytes) -> bool:
        """S3 and GCS refuse the second of two writers; where a store cannot, the later of two whole
        files stays."""
        with self._failing("written"), _IN_PROCESS:
            if self._files.exists(self._at(path)):
                return False
            try:
                self._files.pipe_file(self._at(path), content, mode="create")
            except FileExistsError:
                return False
            return bytes(self._files.cat_file(self._at(path))) == content

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}" if path else str(self._root)

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except StoreFailed:
            raise
        # fsspec's stores let their libraries' errors through, whichever those are
        except Exception as error:
            raise StoreFailed(f"{self.name} cannot be {verb} ({type(error).__name__}).") from None


def _bounded(names: list[str], place: str) -> list[str]:
    if len(names) > MAX_NAMES:
        raise StoreFailed(f"{place} has a folder of more than {MAX_NAMES} entries.")
    return [name for name in names if not name.startswith(".")]


def _within(content: bytes, limit: int, path: str) -> bytes:
    if len(content) > limit:
        raise StoreFailed(f"{path} is larger than {limit} bytes.")
    return content
