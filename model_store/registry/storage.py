"""The storage of a registry: a local folder, or a bucket that fsspec has a URL for, such as S3 or
GCS.

Does not depend on what a checkpoint is. Invariant: a file that can be read is complete, also after
a writer was killed; and every error of a storage library becomes one `RegistryFailed` without
credentials in its text.
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
_BLOCK_BYTES = 2**22
_CREATING = threading.Lock()
"""Held while a remote file is created: fsspec's memory storage checks and writes in two steps."""


class RegistryFailed(CheckpointUnusable):
    """A registry that cannot be read or written; its text is one sentence for the operator."""


class Storage(Protocol):
    """Files by relative path, with `/` between the parts; every method raises `RegistryFailed`."""

    name: str
    """The storage in messages, without credentials."""

    def names(self, path: str) -> list[str]:
        """Names of the files and folders in a folder, sorted; empty where there is no folder."""

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a file of at most `limit` bytes; None where there is no file."""

    def size(self, path: str) -> int | None:
        """A file's size in bytes; None where there is no file."""

    def open(self, path: str) -> IO[bytes]:
        """A file opened for reading in blocks."""

    def put(self, file: Path, path: str) -> None:
        """Copy a local file to a path, and replace a file that is there."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file unless there is one already; returns whether it was written."""


def open_storage(root: str) -> Storage:
    """The storage at a path or URL; raises `RegistryFailed` where fsspec does not support it."""
    if "\0" in root or not root.strip():
        raise RegistryFailed("The registry has no place: give a folder or a URL.")

    if root.startswith("file://"):
        return LocalStorage(Path(root.removeprefix("file://")))
    if "://" in root:
        return RemoteStorage(root)
    return LocalStorage(Path(root).expanduser())


class LocalStorage:
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
        return _visible(found, self.name)

    def read(self, path: str, limit: int) -> bytes | None:
        with self._failing("read"):
            try:
                with (self._folder / path).open("rb") as file:
                    return _bounded(file.read(limit + 1), limit, path)
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
                shutil.copyfileobj(source, copy, _BLOCK_BYTES)

    def create(self, path: str, content: bytes) -> bool:
        with self._failing("written"):
            return create_file(self._target(path), content)

    def _target(self, path: str) -> Path:
        """The file at a path; its folder is created where it is missing."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RegistryFailed(f"{self.name} cannot be {verb} ({reason}).") from None
        except ValueError:
            raise RegistryFailed(f"{self.name} cannot be {verb}: its path is none.") from None


class RemoteStorage:
    """A bucket, or anything else that fsspec opens by URL.

    Its objects must appear whole, as those of S3 and GCS do.
    """

    def __init__(self, url: str) -> None:
        self.name = re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError):  # an unknown scheme, or a library that is not installed
            scheme = url.partition(":")[0]
            raise RegistryFailed(
                f"{self.name} cannot be reached: fsspec has nothing for {scheme}://. For s3:// and"
                " gs:// install the extra buckets."
            ) from None
        except Exception as error:  # as in _failing
            raise RegistryFailed(
                f"{self.name} cannot be reached ({type(error).__name__})."
            ) from None

    def names(self, path: str) -> list[str]:
        with self._failing("listed"):
            try:
                paths = self._files.ls(self._full_path(path), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in paths}
        return _visible(sorted(names), self.name)

    def read(self, path: str, limit: int) -> bytes | None:
        with self._failing("read"):
            try:
                with self._files.open(self._full_path(path), "rb") as file:
                    return _bounded(file.read(limit + 1), limit, path)
            except FileNotFoundError:
                return None

    def size(self, path: str) -> int | None:
        with self._failing("read"):
            try:
                return int(self._files.info(self._full_path(path))["size"])
            except FileNotFoundError:
                return None

    def open(self, path: str) -> IO[bytes]:
        with self._failing("read"):
            file: IO[bytes] = self._files.open(self._full_path(path), "rb", block_size=_BLOCK_BYTES)
            return file

    def put(self, file: Path, path: str) -> None:
        with self._failing("written"):
            self._files.put_file(str(file), self._full_path(path))

    def create(self, path: str, content: bytes) -> bool:
        """S3 and GCS refuse the second of two writers; in a storage that cannot refuse it, the
        later of two whole files stays."""
        full_path = self._full_path(path)
        with self._failing("written"), _CREATING:
            if self._files.exists(full_path):
                return False
            try:
                self._files.pipe_file(full_path, content, mode="create")
            except FileExistsError:
                return False
            return bytes(self._files.cat_file(full_path)) == content

    def _full_path(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}" if path else str(self._root)

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except RegistryFailed:
            raise
        except Exception as error:  # storages raise their libraries' exceptions, of any class
            raise RegistryFailed(
                f"{self.name} cannot be {verb} ({type(error).__name__})."
            ) from None


def _visible(names: list[str], storage: str) -> list[str]:
    """Names without hidden files, such as the drafts of killed writers."""
    if len(names) > MAX_NAMES:
        raise RegistryFailed(f"{storage} has a folder of more than {MAX_NAMES} entries.")
    return [name for name in names if not name.startswith(".")]


def _bounded(content: bytes, limit: int, path: str) -> bytes:
    if len(content) > limit:
        raise RegistryFailed(f"{path} is larger than {limit} bytes.")
    return content
