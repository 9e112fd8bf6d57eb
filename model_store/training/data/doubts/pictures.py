"""Doubts about pictures: all of one size, of one colour, too small, or looking the same.

Depends on picture files, which are decoded. Time and memory are bounded: the first `MAX_PICTURES`
different files of the rows are looked at. Invariant: a picture that cannot be decoded is a fault.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.families.images import FORMATS
from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.rows import Example, Side
from model_store.training.data.validation import image_problem

MAX_PICTURES = 2_000
_FEW = 10
_GRID = 16
_ALIKE = 2.0
"""Mean difference of colour values, of 255, up to which two pictures look the same."""
_SMALL = 3_136
"""Pixels below which GMR enlarges a picture."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that was decoded: its size, and itself in 16 x 16 pixels."""

    width: int
    height: int
    grid: npt.NDArray[np.int16]

    @property
    def has_one_colour(self) -> bool:
        """True where no two parts of it differ visibly."""
        return int(np.ptp(self.grid, axis=(0, 1)).max()) <= 4

    def looks_like(self, other: Seen) -> bool:
        """True where the two differ at most as much as two encodings of one picture."""
        return float(np.abs(self.grid - other.grid).mean()) <= _ALIKE


class PictureDoubts:
    """Decodes the pictures of rows, each file once."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.faults: list[str] = []
        self._seen: dict[Path, Seen | None] = {}
        self._looks = _Looks()
        self._plain, self._small, self._same = Places(), Places(), Places()
        self._alike, self._first = Places(), Places()

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`; a picture that cannot be decoded is added to `faults`."""
        for name, side in (("query", example.query), *example.named_documents()):
            if side.image is not None and side.image not in self._seen:
                self._look(side.image, line, name, example.location)
        self._compare(example, line)

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        sizes = set(self.sizes)
        if len(self.sizes) >= _FEW and len(sizes) == 1:
            width, height = self.sizes[0]
            yield Doubt(
                "one-size",
                f"All pictures have {width} x {height} pixels: were they resized or cut, so that"
                " they lost their shape or their small print?",
                len(self.sizes),
                "picture",
                0,
                tuple(self._first.first),
            )
        yield from found(
            "one-colour",
            self._plain,
            "picture",
            len(self.sizes),
            "Pictures have one colour: are they placeholders, or failed downloads?",
        )
        yield from found(
            "small-picture",
            self._small,
            "picture",
            len(self.sizes),
            f"Pictures have fewer than {_SMALL:,} pixels, and are enlarged: are they thumbnails?",
        )
        yield from found(
            "same-picture",
            self._same,
            "picture",
            len(self.sizes),
            "Pictures look like another file: where one is relevant, the other is, too.",
        )
        yield from found(
            "picture-as-positive",
            self._alike,
            "negative",
            0,
            "Picture negatives look like a positive of their row: they may be relevant, too.",
        )

    def _look(self, path: Path, line: int, name: str, location: str) -> None:
        if len(self._seen) >= MAX_PICTURES:
            return
        self._seen[path] = None
        if image_problem(path) is not None:  # it was found before, and may be too large to decode
            return
        seen = self._seen[path] = _decoded(path)
        if seen is None:
            self.faults.append(f"{location}: {name}.image {path.name!r} cannot be decoded.")
            return

        self._first.add(line, name)
        self.sizes.append((seen.width, seen.height))
        if seen.has_one_colour:
            self._plain.add(line, name)
            return  # all of one colour look the same
        if seen.width * seen.height < _SMALL:
            self._small.add(line, name, f"{seen.width} x {seen.height}")
        other = self._looks.like(seen)
        if other is None:
            self._looks.add(path, seen)
        else:
            self._same.add(line, name, f"like {other.name}")

    def _compare(self, example: Example, line: int) -> None:
        """Count picture negatives that look like a picture positive of the row."""
        positives = list(filter(None, map(self._of, example.positives)))
        for index, negative in enumerate(example.negatives):
            seen = self._of(negative.side)
            if seen is not None and any(map(seen.looks_like, positives)):
                self._alike.add(line, f"negatives[{index}]")

    def _of(self, side: Side) -> Seen | None:
        """A side that is a picture alone, as it was seen."""
        if side.image is None or side.text is not None:
            return None
        return self._seen.get(side.image)


class _Looks:
    """Pictures among which those that look the same are found."""

    def __init__(self) -> None:
        self._paths: list[Path] = []
        self._seen: list[Seen] = []
        self._means = np.empty((MAX_PICTURES, 3))

    def add(self, path: Path, seen: Seen) -> None:
        """Keep a picture."""
        self._means[len(self._paths)] = seen.grid.mean(axis=(0, 1))
        self._paths.append(path)
        self._seen.append(seen)

    def like(self, seen: Seen) -> Path | None:
        """The first picture that looks like this one; those of other mean colours are passed
        over."""
        means = self._means[: len(self._paths)]
        near = np.abs(means - seen.grid.mean(axis=(0, 1))).max(axis=1) <= 3 * _ALIKE
        for number in np.flatnonzero(near).tolist():
            if seen.looks_like(self._seen[number]):
                return self._paths[number]
        return None


def _decoded(path: Path) -> Seen | None:
    """None where the file cannot be decoded."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            image.draft("RGB", (4 * _GRID, 4 * _GRID))
            small = image.convert("RGB").resize((_GRID, _GRID), Image.Resampling.BOX)
    except Exception:  # Pillow raises exceptions of any class for broken files
        return None
    return Seen(width, height, np.asarray(small, np.int16))
