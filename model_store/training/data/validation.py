"""Validation of training rows and their images, before a model is loaded.

Does not depend on models. Invariant: a file without problems can be read to its end by
`read_examples`, and every image of it opens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from model_store.errors import DataError
from model_store.families.images import FORMATS, MAX_ASPECT, MAX_FILE_BYTES, MAX_PIXELS
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Example, parse_row, read_lines

SHOWN = 20
MIN_SIDE = 2


@dataclass(slots=True)
class ValidationReport:
    """Counts of a file; `problems` are sentences, with file and line, on the first `SHOWN` of
    `wrong`."""

    rows: int = 0
    images: int = 0
    hard: int = 0
    random: int = 0
    without_negatives: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Count a problem."""
        self.wrong += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)


def check(
    path: Path,
    *,
    decode: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
    visit: Callable[[Example], None] = lambda example: None,
) -> ValidationReport:
    """Read a file to its end and collect its problems.

    The header of each image is read once; with `decode`, the whole image. Memory is 16 bytes and
    the overhead of a dictionary for each row and each image. `progress` is called for each row,
    and `visit` for each that can be read and whose images can be opened.
    Raises nothing: a file that cannot be read to its end is a problem of the report too.
    """
    report, seen = ValidationReport(), _Seen()
    try:
        for number, line in read_lines(path):
            report.rows += 1
            try:
                example = parse_row(line, path, number)
                if _check_row(example, number, report, seen, decode):
                    visit(example)
            except DataError as error:
                report.add(str(error))
            progress(1)
    except DataError as error:
        report.add(str(error))
    return report


def refuse_bad_rows(path: Path) -> None:
    """Raise `DataError` with a line for each of the first problems of a file of rows."""
    report = check(path)
    if report.wrong:
        lines = list(report.problems)
        if report.wrong > len(lines):
            lines.append(f"... and {report.wrong - len(lines)} more.")
        raise DataError("\n".join(lines))


@dataclass(slots=True)
class _Seen:
    """The line of each id and the problem of each image so far, by 16-byte digests of their
    names."""

    ids: dict[bytes, int] = field(default_factory=dict)
    images: dict[bytes, str | None] = field(default_factory=dict)


def _check_row(
    example: Example, number: int, report: ValidationReport, seen: _Seen, decode: bool
) -> bool:
    """Report the faults of a row; returns whether its images can be opened."""
    first = seen.ids.setdefault(_digest(example.id), number)
    if first != number:
        report.add(f"{example.location}: the id {example.id!r} is line {first}'s already.")
    _count_negatives(example, report)

    problems = list(_image_problems(example, report, seen, decode))
    for problem in problems:
        report.add(f"{example.location}: {problem}.")
    if not problems:
        _check_contents(example, report)
    return not problems


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _count_negatives(example: Example, report: ValidationReport) -> None:
    hard = sum(negative.kind == "hard" for negative in example.negatives)
    report.hard += hard
    report.random += len(example.negatives) - hard
    report.without_negatives += not example.negatives


def _image_problems(
    example: Example, report: ValidationReport, seen: _Seen, decode: bool
) -> Iterator[str]:
    """The problems of the example's images; a file is opened once, however many rows show it."""
    for name, side in (("query", example.query), *example.named_documents()):
        if side.image is None:
            continue

        digest = _digest(str(side.image))
        if digest not in seen.images:
            seen.images[digest] = image_problem(side.image, decode=decode)
            report.images += 1
        problem = seen.images[digest]
        if problem is not None:
            yield f"{name}.image {side.image.name!r} {problem}"


def image_problem(path: Path, *, decode: bool = False) -> str | None:
    """The problem of an image file, as the end of a sentence; None where there is none."""
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
    except Exception:  # Pillow raises exceptions of any class for broken files
        return f"cannot be read as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    return None


def _check_contents(example: Example, report: ValidationReport) -> None:
    """Report each negative that is also a positive: training would learn both answers for it."""
    positives = {content_key(side): index for index, side in enumerate(example.positives)}
    for index, negative in enumerate(example.negatives):
        positive = positives.get(content_key(negative.side))
        if positive is not None:
            report.add(
                f"{example.location}: negatives[{index}] is the same as positives[{positive}]."
            )
