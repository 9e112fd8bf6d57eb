"""Files of lines: read in order, or by number once they were scanned.

Does not depend on what a line holds; callers give the error that is raised. A file that is read in
order may be packed. A scanned file takes 16 bytes of memory a line. Invariant: no line is longer
than the bound, and a file that has changed since it was scanned is not read any more.
"""

from __future__ import annotations

import gzip
import os
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

MAX_LINE_BYTES = 2**24

Unusable = Callable[[str], Exception]
"""Makes the error of a file that cannot be used from one sentence."""
Visit = Callable[[bytes, int], None]
"""Called with a line and its number in the file, from 1."""


def read_lines(path: Path, unusable: Unusable) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and content of every line that is not blank; raises `unusable`."""
    number = 0
    try:
        with _open_unpacked(path) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise unusable(_too_long(path, number))
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise unusable(f"{path}:{number + 1}: the gzip file is cut off or damaged.") from None
    except OSError as error:
        raise unusable(
            f"{path}:{number + 1}: the file cannot be read ({error.strerror})."
        ) from None


@contextmanager
def _open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked where its name ends in `.gz`."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield cast(IO[bytes], file)


class Lines(Sequence[bytes]):
    """The lines of a file that are not blank, by index from 0.

    Threads may share it; it can be forked, and pickled where `unusable` can.
    """

    def __init__(self, path: Path, unusable: Unusable, visit: Visit | None = None) -> None:
        """Scan `path` once, and call `visit` for each line.

        Raises `unusable` for a packed file, an overlong line, and a file that cannot be read.
        """
        if path.suffix == ".gz":
            raise unusable(
                f"{path}: rows of a packed file cannot be read out of order; unpack it first."
            )
        self.path = path
        self._unusable = unusable
        self._starts, self._numbers = array("Q"), array("Q")
        try:
            with path.open("rb") as file:
                self._state = _state(file.fileno())
                self._scan(file.readline, visit)
        except OSError as error:
            raise unusable(f"{path}: the file cannot be read ({error.strerror}).") from None

    def _scan(self, readline: Callable[[int], bytes], visit: Visit | None) -> None:
        start = number = 0
        while line := readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise self._unusable(_too_long(self.path, number))

            if line.strip():
                self._starts.append(start)
                self._numbers.append(number)
                if visit is not None:
                    visit(line, number)
            start += len(line)
        self._starts.append(start)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # one line, never a slice
        _, line = self.numbered(index)
        return line

    def numbered(self, index: int) -> tuple[int, bytes]:
        """The line's number in the file, from 1, and the line; raises `unusable` where the file
        has changed."""
        if not 0 <= index < len(self):
            raise IndexError(index)

        start, end = self._starts[index], self._starts[index + 1]
        try:
            # Opened anew each time: processes share nothing, and no file stays open.
            file = os.open(self.path, os.O_RDONLY)
            try:
                if _state(file) != self._state:
                    raise self._unusable(
                        f"{self.path}: the file has changed since it was first read."
                    )
                content = os.pread(file, end - start, start)
            finally:
                os.close(file)
        except OSError as error:
            raise self._unusable(
                f"{self.path}: the file cannot be read ({error.strerror})."
            ) from None
        return self._numbers[index], content.split(b"\n", 1)[0]


def _too_long(path: Path, number: int) -> str:
    return f"{path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes."


def _state(file: int) -> tuple[int, int, int]:
    status = os.fstat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns
