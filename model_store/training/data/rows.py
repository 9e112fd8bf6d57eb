"""Training rows: one JSON object a line, with a query and its relevant and irrelevant documents.

Rows are streamed and checked one by one. Does not depend on models, and opens no image. Invariant:
an `Example` has a query and at least one positive, none of its sides is empty, and every image path
lies inside the folder of the file that names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from model_store import lines
from model_store.errors import DataError
from model_store.training.data.decoding import decode

MAX_TEXT_CHARS = 100_000
"""The bound of the service for one item: an example that it would refuse is never scored."""
MAX_INSTRUCTION_CHARS = 10_000
MAX_ID_CHARS = 256
MAX_PATH_CHARS = 1_024
MAX_SIDES = 1_000
"""Positives of a row, and negatives of a row."""
MAX_TEACHER_SCORE = 1_000.0
"""The largest size of a teacher's score."""

NegativeKind = Literal["hard", "random"]


@dataclass(frozen=True, slots=True)
class Side:
    """A query or a document: a text, an image file, or both, with the image before the text."""

    text: str | None
    image: Path | None


def modality_of(side: Side) -> str:
    """The modality in M-BEIR's spelling: `"text"`, `"image"` or `"image,text"`."""
    if side.image is None:
        return "text"
    return "image" if side.text is None else "image,text"


@dataclass(frozen=True, slots=True)
class Negative:
    """An irrelevant document, and the kind of search that found it (paper, appendix C.3)."""

    side: Side
    kind: NegativeKind


@dataclass(frozen=True, slots=True)
class Example:
    """One query and its documents.

    `location` is `file:line`. `id` is the row's own, or the file's name and the line where it has
    none. `teacher_scores` are those of the positives, then of the negatives; None without them.
    """

    id: str
    instruction: str | None
    query: Side
    positives: tuple[Side, ...]
    negatives: tuple[Negative, ...]
    location: str
    teacher_scores: tuple[float, ...] | None = None

    @property
    def line(self) -> int:
        """The row's line in its file."""
        return int(self.location.rpartition(":")[2])

    @property
    def documents(self) -> tuple[Side, ...]:
        """The positives, then the negatives."""
        return (*self.positives, *(negative.side for negative in self.negatives))

    def named_documents(self) -> Iterator[tuple[str, Side]]:
        """The positives, then the negatives, each by its field, such as `negatives[0]`."""
        for index, side in enumerate(self.positives):
            yield f"positives[{index}]", side
        for index, negative in enumerate(self.negatives):
            yield f"negatives[{index}]", negative.side


class _SideRow(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    image: str | None = None


class _NegativeRow(_SideRow, forbid_unknown_fields=True):
    kind: NegativeKind = "hard"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    query: _SideRow | str
    positives: list[_SideRow | str]
    negatives: list[_NegativeRow | str] = []
    instruction: str | None = None
    id: str | None = None
    teacher_scores: list[float] | None = None


_decoder = msgspec.json.Decoder(_Row)
_FIELDS = {
    "": ("query", "positives", "negatives", "instruction", "id", "teacher_scores"),
    "query": ("text", "image"),
    "positives": ("text", "image"),
    "negatives": ("text", "image", "kind"),
    "kind": ("hard", "random"),
}


def read_examples(path: Path) -> Iterator[Example]:
    """The rows of a `.jsonl` or `.jsonl.gz` file; memory does not grow with the file.

    Raises `DataError` at the first row that is wrong, or where the file cannot be read.
    """
    for number, line in read_lines(path):
        yield parse_row(line, path, number)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and content of every line that is not blank; raises `DataError`."""
    return lines.read_lines(path, DataError)


def parse_row(line: bytes, path: Path, number: int) -> Example:
    """One line of `path` as an example; raises `DataError`."""
    location = f"{path}:{number}"
    try:
        row = decode(_decoder, line, location, _FIELDS)
    except ValueError as error:
        raise DataError(str(error)) from None

    try:
        instruction = _bounded(row.instruction or "", "instruction", MAX_INSTRUCTION_CHARS)
        documents = len(row.positives) + len(row.negatives)
        return Example(
            id=_bounded(row.id or f"{path.name}:{number}", "id", MAX_ID_CHARS),
            instruction=instruction or None,
            query=_side(row.query, "query", path.parent),
            positives=_positives(row.positives, path.parent),
            negatives=_negatives(row.negatives, path.parent),
            location=location,
            teacher_scores=_teacher_scores(row.teacher_scores, documents),
        )
    except ValueError as error:
        raise DataError(f"{location}: {error}.") from None


def _positives(rows: list[_SideRow | str], folder: Path) -> tuple[Side, ...]:
    if not 1 <= len(rows) <= MAX_SIDES:
        raise ValueError(f"there are {len(rows)} positives, and there must be 1 to {MAX_SIDES}")
    return tuple(_side(row, f"positives[{index}]", folder) for index, row in enumerate(rows))


def _negatives(rows: list[_NegativeRow | str], folder: Path) -> tuple[Negative, ...]:
    if len(rows) > MAX_SIDES:
        raise ValueError(f"there are {len(rows)} negatives, and there may be at most {MAX_SIDES}")

    negatives = []
    for index, row in enumerate(rows):
        kind = "hard" if isinstance(row, str) else row.kind
        negatives.append(Negative(_side(row, f"negatives[{index}]", folder), kind))
    return tuple(negatives)


def _teacher_scores(scores: list[float] | None, documents: int) -> tuple[float, ...] | None:
    if scores is None:
        return None
    if len(scores) != documents:
        raise ValueError(f"there are {len(scores)} teacher_scores for {documents} documents")

    for index, score in enumerate(scores):
        if not (math.isfinite(score) and abs(score) <= MAX_TEACHER_SCORE):
            raise ValueError(
                f"teacher_scores[{index}] must be between -{MAX_TEACHER_SCORE:g} and"
                f" {MAX_TEACHER_SCORE:g}"
            )
    return tuple(scores)


def _side(row: _SideRow | str, name: str, folder: Path) -> Side:
    text, image = (row, None) if isinstance(row, str) else (row.text, row.image)
    return side_of(text, image, name, folder)


def side_of(text: str | None, image: str | None, name: str, folder: Path) -> Side:
    """A side of a row of a file in `folder`; a text of spaces alone counts as none.

    Raises `ValueError`, whose text begins with `name`.
    """
    if text is None or not text.strip():
        text = None
    if text is None and not image:
        raise ValueError(f"{name} is empty: it needs a text or an image")

    if text is not None:
        _bounded(text, f"{name}.text", MAX_TEXT_CHARS)
    return Side(text, folder / relative_path(image, f"{name}.image") if image else None)


def relative_path(image: str, name: str) -> str:
    """An image's path, if it is a relative one that cannot lead out of its folder.

    Raises `ValueError`, whose text begins with `name`.
    """
    _bounded(image, name, MAX_PATH_CHARS)
    parts = PurePosixPath(image).parts
    if image.startswith("/") or ".." in parts or not parts or "\\" in image or ":" in parts[0]:
        raise ValueError(
            f"{name} must be a path inside the file's folder, relative and without '..'"
        )
    return image


def check_names(example: Example) -> None:
    """Raise `ValueError` where a row may not have the example's id or instruction."""
    _bounded(example.id, "id", MAX_ID_CHARS)
    _bounded(example.instruction or "", "instruction", MAX_INSTRUCTION_CHARS)


def _bounded(text: str, name: str, limit: int) -> str:
    if len(text) > limit:
        raise ValueError(f"{name} has {len(text)} characters, and {limit} are allowed")
    if "\0" in text:
        raise ValueError(f"{name} has a NUL character")
    return text
