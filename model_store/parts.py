"""Resumable work in parts: each part is a file, with a note beside it once the part is done.

Does not depend on what parts hold. Invariant: the result of `join` is the same, byte for byte,
however often the work was interrupted, however many processes shared it, and in whatever order they
did the parts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.output_files import output_file, write_json

RUN = "run.json"
_CHUNK = 2**20

Note = dict[str, Any]
"""The counts of a part, as JSON."""


class Parts:
    """A folder with the parts of one piece of work, which several processes may share."""

    def __init__(self, folder: Path, described: dict[str, Any]) -> None:
        """Open or create the folder; `described` identifies the work.

        Raises `DataError` where the folder holds the parts of other work.
        """
        self.folder = folder
        run = folder / RUN
        try:
            found = json.loads(run.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any(folder.glob("[0-9]*")):
                raise DataError(
                    f"{folder}: it holds parts without {RUN}; remove it to begin anew."
                ) from None
            write_json(run, described)
            return
        except (OSError, ValueError):
            raise DataError(f"{run}: it cannot be read; remove {folder} to begin anew.") from None

        expected = json.loads(json.dumps(described))
        if found != expected:
            keys = sorted({*found, *expected})
            differing = [key for key in keys if found.get(key) != expected.get(key)]
            raise DataError(
                f"{folder}: it holds the parts of other work ({', '.join(differing)} differ);"
                " remove it to begin anew."
            )

    def path(self, number: int, suffix: str = ".jsonl") -> Path:
        """The file of a part's content."""
        return self.folder / f"{number:06d}{suffix}"

    def note(self, number: int) -> Note | None:
        """The note of a part; None where the part is not done."""
        try:
            note: Note = json.loads(self.path(number, ".json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise DataError(
                f"{self.path(number, '.json')}: it cannot be read; remove it to do the part again."
            ) from None
        return note

    def finish(self, number: int, note: Note) -> None:
        """Write a part's note; its content must be complete."""
        write_json(self.path(number, ".json"), note)

    def write(self, number: int, lines: Iterable[bytes], note: Note) -> None:
        """Write a part's content, then its note."""
        with output_file(self.path(number)) as write:
            for line in lines:
                write(line)
        self.finish(number, note)

    def notes(self, count: int) -> Iterator[Note]:
        """The notes of the first `count` parts; raises `DataError` where one is not done."""
        for number in range(count):
            note = self.note(number)
            if note is None:
                raise DataError(f"{self.folder}: part {number} of {count} is not done.")
            yield note

    def join(self, count: int, target: Path) -> None:
        """Write the content of the first `count` parts to `target`, atomically.

        Raises `DataError` where one is not done.
        """
        for _ in self.notes(count):
            pass

        with output_file(target) as write:
            for number in range(count):
                with self.path(number).open("rb") as part:
                    while chunk := part.read(_CHUNK):
                        write(chunk)

    def remove(self) -> None:
        """Remove the parts, and the work's description last, so that an interrupted removal leaves
        parts of known work."""
        for path in self.folder.iterdir():
            if path.name != RUN:
                path.unlink()
        shutil.rmtree(self.folder)


def file_identity(path: Path) -> dict[str, Any]:
    """A file in a description of work: its name, its size, and a digest of its first and last MiB.

    A digest of all of it would take minutes for the corpora of this field.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest.update(file.read(_CHUNK))
            file.seek(max(size - _CHUNK, 0))
            digest.update(file.read(_CHUNK))
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror}).") from None
    return {"name": path.name, "bytes": size, "ends": digest.hexdigest()}
