"""Long work in parts: each part is a file that is written whole, with a note beside it that says
that it is done.

Knows files and notes, not what is in them. Invariant: what `join` puts together is the same, byte
for byte, however often the work was interrupted, by whom it was taken up, and in which order the
parts were done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_store.training.data.row_files import output_file, write_json
from model_store.training.data.rows import DataError

RUN = "run.json"
_CHUNK = 2**20

Note = dict[str, Any]
"""What is said of a part: counts, as JSON."""


class Parts:
    """A folder of parts of one piece of work, which `described` tells from any other. Several
    processes may share it."""

    def __init__(self, folder: Path, described: dict[str, Any]) -> None:
        """Raises `DataError` where the folder holds the parts of other work."""
        self.folder = folder
        run = folder / RUN
        try:
            there = json.loads(run.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_json(run, described)
            return
        except (OSError, ValueError):
            raise DataError(f"{run}: it cannot be read; remove {folder} to begin anew.") from None
        wanted = json.loads(json.dumps(described))
        if there != wanted:
            other = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
            raise DataError(
                f"{folder}: it holds the parts of other work ({', '.join(other)} differ); remove it"
                " to begin anew."
            )

    def path(self, number: int, suffix: str = ".jsonl") -> Path:
        """Where a part's content lies."""
        return self.folder / f"{number:06d}{suffix}"

    def note(self, number: int) -> Note | None:
        """What is said of a part that is done; None for one that is not."""
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
        """Say that a part is done: its content is there, whole."""
        write_json(self.path(number, ".json"), note)

    def write(self, number: int, lines: Iterable[bytes], note: Note) -> None:
        """Write a part's lines, then its note."""
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
        """Put the first `count` parts together as `target`, whole or not at all."""
        for _ in self.notes(count):
            pass
        with output_file(target) as write:
            for number in range(count):
                with self.path(number).open("rb") as part:
                    while chunk := part.read(_CHUNK):
                        write(chunk)

    def remove(self) -> None:
        """Take the parts away, their description last: what is left of a removal that was cut off
        is still theirs."""
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == RUN):
            path.unlink()
        shutil.rmtree(self.folder)


def identity(path: Path) -> dict[str, Any]:
    """What tells a file from another in a run's description: its size, and a digest of its first
    and last MiB."""
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
