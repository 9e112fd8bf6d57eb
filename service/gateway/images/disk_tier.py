"""Stored images in a folder: a file for each, which appears whole or not at all.

The module depends on keys and a file system. Several gateways may have one folder: a file's time of
change is when its image was last put or used, and each gateway sweeps the folder by itself, so that
together they exceed the bound until the next sweep at most. The files are not synchronised to the
disk, because every read is verified. Invariant: the event loop never waits for the file system, and
a folder that is full, slow, read-only or away is a miss, counted and logged once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from service.gateway.circuit_breaker import Breaker
from service.gateway.images.byte_index import ByteIndex
from service.gateway.images.keys import ImageKey
from service.observability.image_metrics import (
    IMAGE_DISK_FAILURES,
    IMAGE_STORE_BYTES,
    IMAGE_STORE_LIMIT_BYTES,
)
from service.observability.logs import log

Operation = Literal["read", "write", "renew", "sweep"]
Result = TypeVar("Result")

MAX_FILES = 1_000_000
"""Files of a folder that a sweep looks at."""
BREAKER_FAILURES = 5
"""Failed operations in a row after which the folder is left alone for a while."""
_THREADS = 4
_MAX_PENDING = 64
_RENEWED_PER_TTL = 10
_FILE_NAME = re.compile(r"[0-9a-f]{32}/[0-9a-f]{64}")
_PART_NAME = re.compile(r"[0-9a-f]{32}/[0-9a-f]{64}\.[0-9a-f]{16}\.part")
_PART_SECONDS = 3_600.0
"""A file that was begun so long ago is of a process that ended before it was whole."""


class DiskImages:
    """Images in `folder`, up to `max_bytes`, each for `ttl_seconds`; no file is read beyond
    `max_image_bytes`.

    `seconds` is how long a write and a renewal are waited for.
    """

    name: Literal["disk"] = "disk"

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        ttl_seconds: float,
        max_image_bytes: int,
        seconds: float,
        breaker_seconds: float = 5.0,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._ttl = ttl_seconds
        self._max_image_bytes = max_image_bytes
        self._seconds = seconds
        self._index = ByteIndex(max_bytes)
        # threads of its own, so that a file system that hangs blocks nothing else
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")
        self._pending: set[asyncio.Future[Any]] = set()
        self._breaker = Breaker(failures=BREAKER_FAILURES, seconds=breaker_seconds)
        self._failed = False
        IMAGE_STORE_LIMIT_BYTES.labels(self.name).set(max_bytes)

    async def read(self, keys: Sequence[ImageKey], seconds: float) -> dict[ImageKey, bytes]:
        return await self._run("read", partial(self._read_files, keys), seconds) or {}

    async def write(self, images: Mapping[ImageKey, bytes]) -> None:
        for key, data in images.items():
            written = await self._run("write", partial(self._write_file, key, data), self._seconds)
            if written is None:
                return
            folder = key.scope.hex().encode()
            gone = self._index.add(folder, _file_name(key), len(data))
            if gone:
                await self._run("write", partial(self._remove_files, gone), self._seconds)
        IMAGE_STORE_BYTES.labels(self.name).set(self._index.total)

    async def renew(self, keys: Collection[ImageKey]) -> set[ImageKey]:
        renewed = await self._run("renew", partial(self._renew_files, keys), self._seconds)
        return renewed or set()

    async def sweep(self) -> None:
        index = await self._run("sweep", self._swept, 60 * self._seconds)
        if index is not None:
            self._index = index
            IMAGE_STORE_BYTES.labels(self.name).set(index.total)

    async def warm_up(self) -> None:
        """The first sweep reads the folder."""

    async def close(self) -> None:
        if self._pending:
            await asyncio.wait(self._pending, timeout=self._seconds)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(
        self, operation: Operation, work: Callable[[], Result], seconds: float
    ) -> Result | None:
        """The result of work in a thread, waited for so long at most.

        None after a failure, which is counted, and where too much is under way or the folder is
        left alone for a while.
        """
        if len(self._pending) >= _MAX_PENDING or not self._breaker.enter():
            IMAGE_DISK_FAILURES.labels(operation).inc()
            return None

        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        self._pending.add(working)
        working.add_done_callback(self._forget)
        try:
            await asyncio.wait({working}, timeout=seconds)
        except asyncio.CancelledError:
            self._breaker.leave(None)
            raise

        failure = working.exception() if working.done() else TimeoutError()
        if failure is not None and not isinstance(failure, OSError):
            self._breaker.leave(None)
            raise failure
        self._record(operation, failure)
        return None if failure else working.result()

    def _forget(self, working: asyncio.Future[Any]) -> None:
        self._pending.discard(working)
        if not working.cancelled():
            working.exception()  # mark it as retrieved: its caller may have stopped waiting

    def _record(self, operation: Operation, failure: OSError | None) -> None:
        """Count an operation, report it to the breaker, and log the first failure in a row."""
        self._breaker.leave(failure is None)
        if failure is not None:
            IMAGE_DISK_FAILURES.labels(operation).inc()
            if not self._failed:
                log(
                    "the folder of stored images fails: images are kept elsewhere",
                    logging.WARNING,
                    operation=operation,
                    reason=os.strerror(failure.errno) if failure.errno else "too slow",
                )
            self._failed = True
        elif self._failed and operation != "read":  # a folder that is full can be read
            log("the folder of stored images can be used again", operation=operation)
            self._failed = False

    # -- in a thread -------------------------------------------------------------------------------

    def _path(self, key: ImageKey) -> Path:
        return self._folder / _file_name(key).decode()

    def _read_files(self, keys: Sequence[ImageKey]) -> dict[ImageKey, bytes]:
        found: dict[ImageKey, bytes] = {}
        for key in keys:
            with suppress(FileNotFoundError), self._path(key).open("rb") as file:
                age = time.time() - os.fstat(file.fileno()).st_mtime
                if age < self._ttl:
                    found[key] = file.read(self._max_image_bytes + 1)
                if age > self._ttl / _RENEWED_PER_TTL and key in found:
                    os.utime(file.fileno())
        return found

    def _write_file(self, key: ImageKey, data: bytes) -> bool:
        path = self._path(key)
        part = path.with_name(f"{key.name.hex()}.{secrets.token_hex(8)}.part")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        return True

    def _renew_files(self, keys: Collection[ImageKey]) -> set[ImageKey]:
        renewed: set[ImageKey] = set()
        for key in keys:
            with suppress(FileNotFoundError):
                path = self._path(key)
                if time.time() - path.stat().st_mtime < self._ttl:
                    os.utime(path)
                    renewed.add(key)
        return renewed

    def _remove_files(self, names: Sequence[bytes]) -> bool:
        for name in names:
            (self._folder / name.decode()).unlink(missing_ok=True)
        return True

    def _swept(self) -> ByteIndex:
        """Remove what is over its time or the bound; returns the index of the rest."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = time.time()
        index = ByteIndex(self._max_bytes)
        for changed, size, name in sorted(self._files(now)):
            if now - changed >= self._ttl:
                self._remove_files([name])
            else:
                self._remove_files(index.add(name.partition(b"/")[0], name, size))
        return index

    def _files(self, now: float) -> Iterator[tuple[float, int, bytes]]:
        """Time of change, size and name of each image; parts of ended processes are removed.

        Files that this class does not write are left alone.
        """
        count = 0
        for path in self._folder.glob("*/*"):
            name = path.relative_to(self._folder).as_posix()
            is_part = _PART_NAME.fullmatch(name) is not None
            if not is_part and not _FILE_NAME.fullmatch(name):
                continue
            with suppress(FileNotFoundError):
                facts = path.stat(follow_symlinks=False)
                if not is_part:
                    yield facts.st_mtime, facts.st_size, name.encode()
                elif now - facts.st_mtime > _PART_SECONDS:
                    path.unlink(missing_ok=True)
            count += 1
            if count >= MAX_FILES:
                return


def _file_name(key: ImageKey) -> bytes:
    """The path of an image's file in the folder, with the scope's own folder."""
    return f"{key.scope.hex()}/{key.name.hex()}".encode()
