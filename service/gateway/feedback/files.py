"""The files of feedback in a folder: appended by one thread of each process, closed by size and by
day, and removed by age and by size.

The module depends on bytes and a file system; all of it blocks. Several gateways may have one
folder: each process appends to a file of its own, whose name ends in `.open` until it is closed,
and sweeps by itself, so that together they exceed the bound until the next sweep at most. Lines
about other lines, which are to be forgotten, are in files of their own, which are named by a later
time. Invariant: a file holds whole lines, whatever ends the process or the disk; nothing is kept
longer than its time; an open file of a running process is never removed; a line is removed before
the one that has it forgotten.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from service.observability.feedback_metrics import (
    FEEDBACK_DISK_BYTES,
    FEEDBACK_DISK_LIMIT_BYTES,
    FEEDBACK_REMOVED,
)

EVENTS = "events"
PICTURES = "pictures"
MAX_FILE_BYTES = 64 * 2**20
"""Bytes from which a file is closed."""
MAX_FILES = 1_000_000
"""Files of the folder; the oldest ones beyond them are removed."""
_FILES_OF_BOUND = 8
"""A file has at most this part of the folder's bound."""
_SLACKS_OF_BOUND = 16
"""A sweep that makes room in a full folder frees this part of its bound, too: the next writes need
not list all files."""
_BLOCK_BYTES = 4_096
"""A file takes a multiple of it on a disk, however short it is."""
_DAY_SECONDS = 86_400
_DEAD_SECONDS = 2 * _DAY_SECONDS
"""An open file is appended to on one day; one that has not changed for so long is of a process that
was killed."""
_PART_SECONDS = 3_600
_TIME = "%Y%m%dT%H%M%SZ"
_EVENT_FILE = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{16}\.jsonl(\.open)?")
_PICTURE_FILE = re.compile(r"[0-9a-f]{64}\.(?:png|jpg|webp)(\.[0-9a-f]{16}\.part)?")
_SUFFIXES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"RIFF", "webp"))


@dataclass(slots=True)
class _Open:
    """A file that is appended to."""

    handle: int
    path: Path
    day: int
    size: int = 0


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    """A file; `since` is when its first line was written, or its picture was last kept."""

    since: float
    path: Path
    size: int
    removable: bool


class FeedbackFiles:
    """The files of one process, and the bounds of the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        ttl_seconds: float,
        window_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`window_seconds` is the time after an answer for which lines about it are written."""
        self._events, self._pictures = folder / EVENTS, folder / PICTURES
        self._max_bytes = max_bytes
        self.max_entry_bytes = min(MAX_FILE_BYTES, max_bytes // _FILES_OF_BOUND)
        """The most bytes of a picture, or of lines that are written together."""
        self._ttl = ttl_seconds
        self._window = window_seconds
        self._clock = clock
        self._open: dict[bool, _Open] = {}
        self._total = 0
        FEEDBACK_DISK_LIMIT_BYTES.set(max_bytes)

    def write(self, lines: Sequence[bytes], *, forget: bool = False) -> None:
        """Append whole lines, or those that have others forgotten; raises `OSError`, and then none
        of them is in the file."""
        content = b"".join(lines)
        self._make_room(len(content))
        file = self._file(forget=forget)
        try:
            _write_whole(file.handle, content)
        except OSError:
            # a part of a line would join the next one
            os.ftruncate(file.handle, file.size)
            raise
        file.size += len(content)
        self._total += len(content)

    def keep_picture(self, digest: bytes, data: bytes) -> None:
        """Keep a picture once, for its whole time from now on; raises `OSError`."""
        name = f"{digest.hex()}.{_suffix(data)}"
        path = self._pictures / name[:2] / name
        with suppress(FileNotFoundError):
            os.utime(path)
            return

        self._make_room(len(data))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f"{name}.{secrets.token_hex(8)}.part")
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        self._total += _on_disk(len(data))

    def close(self) -> None:
        """Close the open files, so that they are read as whole ones; raises `OSError`."""
        for forget in list(self._open):
            self._close(forget=forget)

    def sweep(self) -> None:
        """Close files of yesterday, and remove what is over its time, and the oldest files beyond
        the bound; raises `OSError`."""
        self._sweep(self._max_bytes)

    def _sweep(self, max_bytes: int) -> None:
        now = self._clock()
        for forget, file in list(self._open.items()):
            if file.day != _day(now):
                self._close(forget=forget)

        kept: list[_Found] = []
        for found in self._found(now):
            if found.removable and now - found.since >= self._ttl:
                _remove(found, "ttl")
            else:
                kept.append(found)

        total, count = sum(found.size for found in kept), len(kept)
        if total > max_bytes or count > MAX_FILES:
            kept.sort()
        for found in kept:
            if total <= max_bytes and count <= MAX_FILES:
                break
            if found.removable:
                _remove(found, "bytes")
                total -= found.size
                count -= 1
        self._total = total
        FEEDBACK_DISK_BYTES.set(total)

    def _make_room(self, size: int) -> None:
        if self._total + size <= self._max_bytes:
            return
        # the newest feedback is worth more than the oldest: whole files make room for it
        if size <= self.max_entry_bytes:
            self._sweep(self._max_bytes - size - self._max_bytes // _SLACKS_OF_BOUND)
        if self._total + size > self._max_bytes:
            raise OSError(errno.ENOSPC, "the folder of feedback is full")

    def _file(self, *, forget: bool) -> _Open:
        """The open file; a new one where there is none, or where the former is full, of another day
        or removed."""
        now = self._clock()
        file = self._open.get(forget)
        if file is not None:
            is_gone = os.fstat(file.handle).st_nlink == 0
            if not is_gone and file.day == _day(now) and file.size < self.max_entry_bytes:
                return file
            if is_gone:
                os.close(file.handle)
                del self._open[forget]
            else:
                self._close(forget=forget)

        self._events.mkdir(mode=0o700, parents=True, exist_ok=True)
        since = (_day(now) + 1) * _DAY_SECONDS + self._window if forget else now
        named = datetime.fromtimestamp(since, UTC).strftime(_TIME)
        path = self._events / f"{named}-{secrets.token_hex(8)}.jsonl.open"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = _Open(os.open(path, flags, 0o600), path, _day(now))
        self._open[forget] = file
        return file

    def _close(self, *, forget: bool) -> None:
        file = self._open.pop(forget)
        try:
            os.fsync(file.handle)
        finally:
            os.close(file.handle)
        file.path.rename(file.path.with_suffix(""))

    def _found(self, now: float) -> Iterator[_Found]:
        """The files of the folder that this class writes; parts of ended processes are removed."""
        own = [file.path for file in self._open.values()]
        for path in chain(self._events.glob("*"), self._pictures.glob("*/*")):
            with suppress(FileNotFoundError):
                facts = path.stat(follow_symlinks=False)
                age = now - facts.st_mtime
                event = _EVENT_FILE.fullmatch(path.name)
                if event:
                    since = datetime.strptime(event[1], _TIME).replace(tzinfo=UTC).timestamp()
                    is_closed = not event[2] or (path not in own and age > _DEAD_SECONDS)
                    yield _Found(since, path, _on_disk(facts.st_size), is_closed)
                    continue

                picture = _PICTURE_FILE.fullmatch(path.name)
                if picture and picture[1] and age > _PART_SECONDS:
                    path.unlink(missing_ok=True)
                elif picture:
                    size = _on_disk(facts.st_size)
                    yield _Found(facts.st_mtime, path, size, not picture[1])


def _write_whole(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def _remove(found: _Found, reason: str) -> None:
    found.path.unlink(missing_ok=True)
    FEEDBACK_REMOVED.labels(reason).inc()


def _day(now: float) -> int:
    return int(now // _DAY_SECONDS)


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES


def _suffix(data: bytes) -> str:
    for magic, suffix in _SUFFIXES:
        if data.startswith(magic):
            return suffix
    raise ValueError("a picture of another format")
