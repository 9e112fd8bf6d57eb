"""Contents of answers: those that the folder of feedback has, or those of the operator's own log.

Does not depend on events. Invariant: a side that is given is one that a training row may have, and
its picture is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec

from model_store.errors import DataError
from model_store.lines import Lines
from model_store.training.data.decoding import decode
from model_store.training.data.feedback.answers import Answer
from model_store.training.data.feedback.folder import FeedbackFolder, Place
from model_store.training.data.feedback.lines import ContentLine, Part, decode_line
from model_store.training.data.rows import (
    MAX_INSTRUCTION_CHARS,
    MAX_TEXT_CHARS,
    Side,
    side_of,
)
from model_store.training.data.validation import image_problem

_AT_ONCE = 64
"""Answers whose contents are in memory at a time."""


@dataclass(frozen=True, slots=True)
class AnswerContents:
    """The query of an answer, its instruction if it had one of its own, and documents by index.

    A side that no row can have is left out; the query is None then.
    """

    query: Side | None
    instruction: str | None
    documents: Mapping[int, Side]


class Contents(Protocol):
    """A source of contents; `left_out` counts the sides that no row can have, by reason."""

    left_out: Counter[str]

    def of(self, answer: Answer) -> AnswerContents | None:
        """The contents of an answer; None where the source has none. Raises `DataError`."""
        ...


class FolderContents:
    """Contents that the service kept."""

    def __init__(self, folder: FeedbackFolder, places: Mapping[str, Place]) -> None:
        self._folder = folder
        self._places = places
        self.left_out: Counter[str] = Counter()
        self._read = lru_cache(_AT_ONCE)(self._of)

    def of(self, answer: Answer) -> AnswerContents | None:
        place = self._places.get(answer.id)
        return None if place is None else self._read(place)

    def _of(self, place: Place) -> AnswerContents:
        line = decode_line(place.read(), place.location)
        if not isinstance(line, ContentLine):
            raise DataError(f"{place.location}: the file has changed while it was read.")
        documents: dict[int, Side] = {}
        for index, parts in line.documents.items():
            side = self._side(parts)
            if side is not None and index.isdecimal():
                documents[int(index)] = side
        return AnswerContents(self._side(line.query), line.instruction, documents)

    def _side(self, parts: list[Part]) -> Side | None:
        """A side of an item's parts: at most one picture, and at most one text."""
        texts = [part["text"] for part in parts if "text" in part]
        pictures = [part["image"] for part in parts if "image" in part]
        if len(texts) > 1 or len(pictures) > 1:
            self.left_out["sides of several texts or pictures"] += 1
            return None

        text = texts[0].replace("\0", "") if texts else None
        if text is not None and len(text) > MAX_TEXT_CHARS:
            self.left_out["texts cut"] += 1
            text = text[:MAX_TEXT_CHARS]
        image = self._folder.picture(pictures[0]) if pictures else None
        if pictures and (image is None or image_problem(image)):
            self.left_out["sides without their picture"] += 1
            return None
        if image is None and not (text and text.strip()):
            self.left_out["empty sides"] += 1
            return None
        return Side(text if text and text.strip() else None, image)


class _SideRow(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    image: str | None = None
    id: str | int | None = None
    metadata: dict[str, Any] | None = None


class _LogRow(msgspec.Struct):
    request_id: str
    query: _SideRow | str
    documents: list[_SideRow | str]
    instruction: str | None = None
    tenant: str | None = None


_log_decoder = msgspec.json.Decoder(_LogRow)
_FIELDS = {
    "": ("request_id", "query", "documents", "instruction", "tenant"),
    "query": ("text", "image", "id", "metadata"),
    "documents": ("text", "image", "id", "metadata"),
}


@dataclass(slots=True)
class _Logged:
    """The lines of a log with a request id that has feedback."""

    numbers: dict[str, int] = field(default_factory=dict)
    ambiguous: set[str] = field(default_factory=set)


class LogContents:
    """Contents of the operator's log: JSON lines with `request_id`, `query` and `documents` as they
    were sent. Paths of images are relative to the log's folder."""

    def __init__(self, path: Path, answers: Mapping[str, Answer]) -> None:
        """Scan the log; raises `DataError` at the first line that is wrong."""
        self._path = path
        self.left_out: Counter[str] = Counter()
        wanted = {answer.request_id for answer in answers.values()}
        requests = Counter(answer.request_id for answer in answers.values())
        self._shared = {name for name, count in requests.items() if count > 1}
        self._logged = _Logged()
        scanned = 0

        def visit(line: bytes, number: int) -> None:
            nonlocal scanned
            name = self._row(line, f"{path}:{number}").request_id
            first = self._logged.numbers.setdefault(name, scanned) if name in wanted else scanned
            if first != scanned:
                self._logged.ambiguous.add(name)
            scanned += 1

        self._lines = Lines(path, DataError, visit)
        self._read = lru_cache(_AT_ONCE)(self._of)

    def of(self, answer: Answer) -> AnswerContents | None:
        name = answer.request_id
        if name in self._logged.ambiguous or name in self._shared:
            self.left_out["answers whose request id is there twice"] += 1
            return None
        index = self._logged.numbers.get(name)
        return None if index is None else self._read(index)

    def _of(self, index: int) -> AnswerContents:
        number, line = self._lines.numbered(index)
        location = f"{self._path}:{number}"
        row = self._row(line, location)
        try:
            query = _side(row.query, "query", self._path.parent)
            documents = {
                at: _side(document, f"documents[{at}]", self._path.parent)
                for at, document in enumerate(row.documents)
            }
        except ValueError as error:
            raise DataError(f"{location}: {error}.") from None
        for side in (query, *documents.values()):
            problem = image_problem(side.image) if side.image is not None else None
            if problem:
                raise DataError(f"{location}: the image {side.image} {problem}.")
        return AnswerContents(query, row.instruction or None, documents)

    def _row(self, line: bytes, location: str) -> _LogRow:
        try:
            row = decode(_log_decoder, line, location, _FIELDS)
        except ValueError as error:
            raise DataError(str(error)) from None
        if len(row.instruction or "") > MAX_INSTRUCTION_CHARS:
            raise DataError(
                f"{location}: instruction has more than {MAX_INSTRUCTION_CHARS} characters."
            )
        return row


def _side(row: _SideRow | str, name: str, folder: Path) -> Side:
    text, image = (row, None) if isinstance(row, str) else (row.text, row.image)
    return side_of(text, image, name, folder)
