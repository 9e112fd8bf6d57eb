"""A doubt about training rows: a sentence, a count, and the first places.

Does not depend on what is doubted. Invariant: a doubt counts all that it found, and keeps the first
`SHOWN` places alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from model_store.training.data.rows import Example

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the file, the side of its row that is meant, and a remark on it."""

    line: int
    side: str = ""
    remark: str = ""


@dataclass(slots=True)
class Places:
    """A count of places; those found first are kept."""

    count: int = 0
    first: list[Place] = field(default_factory=list)

    def add(self, line: int, side: str = "", remark: str = "") -> None:
        """Count a place."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Place(line, side, remark))


@dataclass(frozen=True, slots=True)
class Doubt:
    """A sentence on a weakness of rows, and how often it was found.

    `name` is one word of lower case; `noun` is what is counted, of `total` that were looked at.
    """

    name: str
    sentence: str
    count: int
    noun: str
    total: int = 0
    places: tuple[Place, ...] = ()

    @property
    def amount(self) -> str:
        """The count with its noun, such as `3 of 24 rows`."""
        if self.total > self.count:
            return f"{self.count:,} of {counted(self.total, self.noun)}"
        return counted(self.count, self.noun)


class Detector(Protocol):
    """Looks at rows one by one, and then says what is doubtful about them."""

    def see(self, example: Example, line: int) -> None:
        """Look at a row that has no fault."""
        ...

    def doubts(self) -> Iterator[Doubt]:
        """All that is doubtful about the rows so far."""
        ...


def found(name: str, places: Places, noun: str, total: int, sentence: str) -> Iterator[Doubt]:
    """A doubt about some places, or none where there is no place."""
    if places.count:
        yield Doubt(name, sentence, places.count, noun, total, tuple(places.first))


def counted(count: int, noun: str) -> str:
    """A number with its noun, which is regular in the plural."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def share_of(count: int, total: int) -> str:
    """A part of a total, in per cent."""
    share = 100 * count / total
    return f"{share:.0f} %" if share >= 10 or count == total else f"{share:.1g} %"
