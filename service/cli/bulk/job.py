"""A run of `gmr bulk`: its parts, done one after the other, and its identity.

Depends on files and a scorer, not on how rows are scored. A part appears whole or not at all, so a
run that was killed continues with its next part. Invariant: the parts of a run are of one input,
one model digest and one set of options; another run is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.output_files import json_line
from model_store.parts import RUN, Parts
from service.cli.bulk.requests import RowShape, Scores
from service.cli.bulk.sources import Row, Source

_FORMAT = 1
"""The version of the parts' files."""

Score = Callable[[Iterable[Row | None]], Awaitable[list[Scores]]]


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count` of the parts of a run."""

    index: int = 0
    count: int = 1

    def parts(self, parts: int) -> range:
        """The numbers of the parts that belong to this shard."""
        return range(self.index, parts, self.count)


class Job:
    """The parts of one run in a folder beside its output."""

    def __init__(self, source: Source, target: Path, identity: Mapping[str, Any]) -> None:
        """Open or create the folder; raises `DataError` where it holds the parts of another run."""
        self.source = source
        self._parts = Parts(folder_of(target), dict(identity))

    def left(self, shard: Shard) -> list[int]:
        """The parts of a shard that are not done."""
        return [
            number
            for number in shard.parts(len(self.source.part_rows))
            if self._parts.note(number) is None
        ]

    async def do(self, number: int, score: Score) -> None:
        """Score the rows of a part, and write it. Raises `DataError` where the parts were removed
        meanwhile."""
        scores = await score(self.source.part(number))
        if not (self._parts.folder / RUN).exists():
            raise DataError(f"{self._parts.folder}: another run has removed it meanwhile.")
        lines = [json_line(each.fields()) for each in scores]
        failed = sum(each.error is not None for each in scores)
        missed = sum(len(each.errors) for each in scores)
        note = {"rows": len(scores), "failed_rows": failed, "failed_candidates": missed}
        self._parts.write(number, lines, note)

    def counts(self) -> dict[str, int]:
        """The counts of all parts; raises `DataError` where one is not done."""
        total = {"rows": 0, "failed_rows": 0, "failed_candidates": 0}
        for note in self._parts.notes(len(self.source.part_rows)):
            for name in total:
                total[name] += note[name]
        return total

    def scores(self, number: int) -> Iterator[dict[str, Any]]:
        """The output fields of each row of a part."""
        with self._parts.path(number).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def remove(self) -> None:
        """Remove the parts: the output is complete. The folder's name goes first, so that no run
        finds half of it."""
        folder = self._parts.folder
        removed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def folder_of(target: Path) -> Path:
    """The folder of a run's parts."""
    return target.with_name(f"{target.name}.parts")


def identity_of(source: Source, digest: str, shape: RowShape, rows_per_part: int) -> dict[str, Any]:
    """All that the scores of a run depend on, by names that a refusal repeats."""
    return {
        "format": _FORMAT,
        "input": source.digest,
        "model digest": digest,
        "fields": shape.read(),
        "options": dict(shape.options),
        "rows per part": rows_per_part,
    }


def kept_identity(target: Path) -> dict[str, Any]:
    """The identity of the run whose parts are there; raises `DataError` where there is none."""
    run = folder_of(target) / RUN
    try:
        identity: dict[str, Any] = json.loads(run.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(f"{run}: no part of this run is there.") from None
    return identity


def done_parts(target: Path, numbers: Iterable[int]) -> list[int]:
    """Those parts of a run that are done, whatever the run is of."""
    folder = folder_of(target)
    return [number for number in numbers if (folder / f"{number:06d}.json").exists()]
