"""Everything that is wrong with training data, found before a model is loaded.

Knows rows and image headers, no model. Invariant: data without a problem here can be read to its
end by `read_examples`, and every image of it opens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from model_store.families.images import FORMATS, MAX_ASPECT, MAX_FILE_BYTES, MAX_PIXELS
from model_store.training.data.identity import key_of
from model_store.training.data.rows import DataError, Example, Side, parse_row, read_lines

SHOWN = 20
MIN_SIDE = 2


@dataclass(slots=True)
class Report:
    """What a file holds; `problems` are the first `SHOWN` of `wrong`, one sentence with file and
    line each."""

    rows: int = 0
    images: int = 0
    hard: int = 0
    random: int = 0
    without_negatives: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        self.wrong += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)


def check(
    path: Path, *, decode: bool = False, progress: Callable[[int], None] = lambda rows: None
) -> Report:
    """Read `path` to its end and collect what is wrong with it.

    Each image's header is read once; with `decode`, all of each image. Memory: 16 bytes and their
    set's overhead for each row and each image. `progress` is called for each row.
    Raises nothing: also a file that cannot be read, or not to its end, is a problem of the report.
    """
    report, known = Report(), _Known()
    try:
        for number, line in read_lines(path):
            report.rows += 1
            try:
                _row(parse_row(line, path, number), number, report, known, decode)
            except DataError as error:
                report.add(str(error))
            progress(1)
    except DataError as error:
        report.add(str(error))
    return report


@dataclass(slots=True)
class _Known:
    """The line of each id, and what is wrong with each image, both by 16 bytes of their name's
    digest."""

    ids: dict[bytes, int] = field(default_factory=dict)
    images: dict[bytes, str | None] = field(default_factory=dict)


def _row(example: Example, number: int, report: Report, known: _Known, decode: bool) -> None:
    first = known.ids.setdefault(_short(example.id), number)
    if first != number:
        report.add(f"{example.place}: the id {example.id!r} is line {first}'s already.")
    _count(example, report)
    broken = list(_images(example, report, known, decode))
    for problem in broken:
        report.add(f"{example.place}: {problem}.")
    if not broken:
        _contents(example, report)


def _short(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _count(example: Example, report: Report) -> None:
    hard = sum(negative.kind == "hard" for negative in example.negatives)
    report.hard += hard
    report.random += len(example.negatives) - hard
    report.without_negatives += not example.negatives


def _images(example: Example, report: Report, known: _Known, decode: bool) -> Iterator[str]:
    """What is wrong with the example's images; a file is opened once, however many rows show it."""
    for name, side in _sides(example):
        if side.image is None:
            continue
        digest = _short(str(side.image))
        if digest not in known.images:
            known.images[digest] = image_problem(side.image, decode=decode)
            report.images += 1
        if known.images[digest] is not None:
            yield f"{name}.image {side.image.name!r} {known.images[digest]}"


def image_problem(path: Path, *, decode: bool = False) -> str | None:
    """What is wrong with an image file, as the end of a sentence; None where nothing is."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return f"has more than {MAX_FILE_BYTES} bytes"
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            short, long = sorted(image.size)
            if short < MIN_SIDE or long > MAX_ASPECT * short:
                return f"is {image.width} x {image.height} pixels: a side is too short"
            if short * long > MAX_PIXELS:
                return f"has more than {MAX_PIXELS} pixels"
            if decode:
                image.load()
    except FileNotFoundError:
        return "does not exist"
    except Exception:  # a broken file leads Pillow to exceptions of any kind
        return f"cannot be read as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    return None


def _contents(example: Example, report: Report) -> None:
    """A positive that is also a negative would be taught as relevant and as irrelevant at once."""
    positives = {key_of(side): place for place, side in enumerate(example.positives)}
    for place, negative in enumerate(example.negatives):
        if (same := positives.get(key_of(negative.side))) is not None:
            report.add(f"{example.place}: negatives[{place}] is the same as positives[{same}].")


def _sides(example: Example) -> Iterator[tuple[str, Side]]:
    yield "query", example.query
    for place, side in enumerate(example.positives):
        yield f"positives[{place}]", side
    for place, negative in enumerate(example.negatives):
        yield f"negatives[{place}]", negative.side
