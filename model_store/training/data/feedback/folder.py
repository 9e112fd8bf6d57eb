"""A folder of feedback: its files, their lines in order, and its pictures.

Does not depend on what lines mean. Running gateways may append to files that end in `.open`: the
last line of one may be unfinished, and is left out. Invariant: a line is read as it was when the
folder was scanned, and every picture's path lies in the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import DataError
from model_store.lines import MAX_LINE_BYTES

EVENTS, PICTURES = "events", "pictures"
OPEN = ".open"
MAX_FILES = 100_000
_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}\.jsonl(\.open)?")
_REFERENCE = re.compile(r"sha256:([0-9a-f]{64})")
_SUFFIXES = ("png", "jpg", "webp")


@dataclass(frozen=True, slots=True)
class Place:
    """A line's file, number, first byte and length."""

    path: Path
    number: int
    start: int
    length: int

    @property
    def location(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> bytes:
        """The line; raises `DataError` where the file has gone, or was written anew."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                line = file.read(self.length)
        except OSError as error:
            raise DataError(f"{self.location}: it cannot be read ({error.strerror}).") from None
        if len(line) != self.length or not line.endswith(b"\n"):
            raise DataError(f"{self.location}: the file has changed while it was read.")
        return line


class FeedbackFolder:
    """The files of a folder, the oldest first."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` where the folder has no feedback."""
        self.folder = folder
        try:
            names = sorted(os.listdir(folder / EVENTS))
        except OSError as error:
            raise DataError(
                f"{folder}: there is no feedback in it: no folder {EVENTS} ({error.strerror})."
            ) from None
        self.files = [folder / EVENTS / name for name in names if _FILE.fullmatch(name)]
        if len(self.files) > MAX_FILES:
            raise DataError(f"{folder}: there are more than {MAX_FILES:,} files of feedback.")

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """Every whole line; raises `DataError`."""
        for path in self.files:
            yield from lines_of(path)

    def picture(self, reference: str) -> Path | None:
        """The file of a picture; None where there is none, or no reference."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            return None
        for suffix in _SUFFIXES:
            path = self.folder / PICTURES / match[1][:2] / f"{match[1]}.{suffix}"
            if path.is_file():
                return path
        return None


def lines_of(path: Path) -> Iterator[tuple[Place, bytes]]:
    """The whole lines of a file. One that was closed or removed since it was listed is read under
    its new name, or has none. Raises `DataError`."""
    start = number = 0
    path = _present(path)
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if not line.endswith(b"\n"):
                    if path.suffix == OPEN and len(line) <= MAX_LINE_BYTES:
                        return
                    raise DataError(f"{path}:{number}: the line is cut off, or too long.")
                yield Place(path, number, start, len(line)), line
                start += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}:{number + 1}: it cannot be read ({error.strerror}).") from None


def _present(path: Path) -> Path:
    closed = path.with_suffix("")
    return closed if path.suffix == OPEN and closed.exists() and not path.exists() else path
