"""A journal: an append-only file of results, one line of JSON each.

Does not depend on what scores queries. Invariant: a line that ends with a newline is whole. What a
killed process or a full disk has left behind the last newline is cut off before the next line, and
no reader sees it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from model_store.evaluation.runs.query_result import QueryResult

MAX_LINE_BYTES = 64 * 2**20
_SYNC_SECONDS = 1.0
"""Seconds of results that a crash of the machine may lose; that of the process loses none."""


class RunUnusable(Exception):
    """A run's folder that cannot be used; its text is one sentence, with file and line where there
    are some."""


class _Outline(msgspec.Struct):
    """The fields of a line that say which query it is of, and if it failed."""

    query: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a journal: its place, and if it is a failure."""

    journal: Path
    offset: int
    length: int
    failed: bool

    def read(self) -> QueryResult:
        """The result of the line. Raises `RunUnusable` and `OSError`."""
        with self.journal.open("rb") as file:
            file.seek(self.offset)
            line = file.read(self.length)
        try:
            return msgspec.json.decode(line, type=QueryResult)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RunUnusable(
                f"{self.journal}: the line at byte {self.offset:,} is no result."
            ) from None


def entries(journal: Path) -> Iterator[tuple[str, Entry]]:
    """The query of each whole line, and the line's place. Raises `RunUnusable` and `OSError`."""
    decoder = msgspec.json.Decoder(_Outline)
    offset = 0
    with journal.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
            if not line.endswith(b"\n"):
                if len(line) == MAX_LINE_BYTES:
                    raise RunUnusable(f"{journal}: line {number} is too long to be a result.")
                return  # a killed process has left it, or another one is writing it
            try:
                outline = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise RunUnusable(
                    f"{journal}: line {number} is no result; remove that line, and the same command"
                    " scores its query once more."
                ) from None
            yield outline.query, Entry(journal, offset, len(line), failed=bool(outline.error))
            offset += len(line)


class Journal:
    """A journal that is appended to. A caller's lock keeps other processes from it."""

    def __init__(self, path: Path) -> None:
        """Open or create a journal, and cut off what stands behind its last newline. Raises
        `OSError`."""
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._end = _whole_bytes(self._file)
        os.ftruncate(self._file, self._end)
        self._synced = time.monotonic()

    def append(self, result: QueryResult) -> None:
        """Append a result. Raises `OSError`, such as for a full disk; the journal then ends with
        the result before."""
        line = msgspec.json.encode(result) + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
        except OSError as error:
            os.ftruncate(self._file, self._end)
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self._end += len(line)
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """Have the disk hold all results, and close the file."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()


def _whole_bytes(file: int) -> int:
    """The bytes of a file up to and with its last newline."""
    end = os.lseek(file, 0, os.SEEK_END)
    block = 2**16
    while end:
        start = max(0, end - block)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
