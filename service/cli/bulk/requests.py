"""A row as lines of a stream of requests, and its answers as the scores of the row.

Depends on rows and on the service's request and answer, not on files of rows or HTTP. Invariant: a
row has one score for each candidate, in their order: a number, or null beside an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from service.cli.client.stored_pictures import reference_of
from service.cli.documents.pictures import Unreadable, read_picture

_SENT_AS_THEY_ARE = ("data:", "sha256:", "https://", "http://")
_MAX_PATH_CHARS = 1_024
INVALID_ROW = "invalid_row"
RESULT_FIELDS = ("row", "scores", "logits", "probabilities", "errors", "error")
"""The fields that a run adds to a row."""


@dataclass(frozen=True, slots=True)
class RowShape:
    """The fields of a row that are read, and the options of all requests."""

    query: str = "query"
    documents: str = "documents"
    instruction: str = "instruction"
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> tuple[str, str, str]:
        """The names of the fields that are read."""
        return self.query, self.documents, self.instruction

    def with_model(self, model: str | None) -> RowShape:
        """The same with requests for a model."""
        return replace(self, options={**self.options, "model": model}) if model else self


@dataclass(frozen=True, slots=True)
class RowContext:
    """The shape of rows, the folder that their pictures' paths are relative to, and the maximum
    numbers of candidates in a request and of pictures that are put by one call (0: none are)."""

    shape: RowShape
    folder: Path
    max_documents: int
    put_images: int = 0


class BadRow(Exception):
    """A row that is not sent; `code` is as in an answer's errors, the message one sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Scores:
    """The scores of a row's candidates so far, or the error that it has instead."""

    scores: list[float | None] = field(default_factory=list)
    logits: list[float | None] = field(default_factory=list)
    probabilities: list[float | None] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, str] | None = None

    def expect(self, candidates: int) -> None:
        """Begin without a score for any of so many candidates."""
        self.scores, self.logits = [None] * candidates, [None] * candidates
        self.probabilities = [None] * candidates

    def add(self, answer: Mapping[str, Any], offset: int, field: str) -> None:
        """Add the answer for the candidates from `offset` on, which are in a field of the row; a
        row with an error has none."""
        if self.error:
            return
        for result in answer["results"]:
            index = offset + result["index"]
            self.scores[index], self.logits[index] = result["relevance_score"], result["logit"]
            self.probabilities[index] = result.get("probability")
        missed = {error["index"] for error in self.errors}
        for error in answer["errors"]:
            index = offset + error["index"]
            if index not in missed:
                place = f"documents[{error['index']}]"
                message = error["message"].replace(place, f"{field}[{index}]", 1)
                self.miss(index, error["code"], message)

    def miss(self, index: int, code: str, message: str) -> None:
        """Record the error of one candidate."""
        self.errors.append({"index": index, "code": code, "message": message})

    def fail(self, code: str, message: str) -> None:
        """Replace all scores by an error of the row."""
        self.error = {"code": code, "message": message}

    def fields(self) -> dict[str, Any]:
        """The fields of the row's output."""
        if self.error:
            unscored = dict.fromkeys(("scores", "logits", "probabilities"))
            return {**unscored, "errors": [], "error": self.error}
        has_map = any(each is not None for each in self.probabilities)
        return {
            "scores": self.scores,
            "logits": self.logits,
            "probabilities": self.probabilities if has_map else None,
            "errors": sorted(self.errors, key=lambda error: error["index"]),
            "error": None,
        }


def candidates_of(row: Mapping[str, Any] | None, shape: RowShape) -> list[Any]:
    """The candidates of a row. Raises `BadRow`."""
    if row is None:
        raise BadRow(INVALID_ROW, "The line is no JSON object.")
    taken = [name for name in RESULT_FIELDS if name in row]
    if taken:
        raise BadRow(INVALID_ROW, f"{taken[0]} is a field of the output: give it another name.")

    documents = row.get(shape.documents)
    if not isinstance(documents, list):
        raise BadRow(INVALID_ROW, f"{shape.documents} is no list.")
    if row.get(shape.query) is None:
        raise BadRow(INVALID_ROW, f"{shape.query} is missing.")
    return documents


def request_lines(
    row: Mapping[str, Any], documents: list[Any], found: Scores, context: RowContext
) -> Iterator[tuple[int, bytes, dict[str, bytes]]]:
    """The requests of a row, each with the index of its first candidate and the pictures that it
    refers to.

    A candidate whose picture cannot be read is an error of `found`, and empty in the request.
    Raises `BadRow` where it is the query's.
    """
    shape = context.shape
    fields = dict(shape.options)
    of_query: dict[str, bytes] = {}
    try:
        fields["query"] = _item(row[shape.query], context.folder, of_query)
    except Unreadable as error:
        raise BadRow(error.code, f"{shape.query}.image: {error}") from None
    if row.get(shape.instruction) is not None:
        fields["instruction"] = row[shape.instruction]

    for start in range(0, len(documents), context.max_documents):
        items: list[Any] = []
        pictures = dict(of_query)
        for index, document in enumerate(documents[start : start + context.max_documents], start):
            try:
                items.append(_item(document, context.folder, pictures))
            except Unreadable as error:
                found.miss(index, error.code, f"{shape.documents}[{index}].image: {error}")
                items.append("")
        yield start, json.dumps(fields | {"documents": items}).encode(), pictures


def _item(value: Any, folder: Path, pictures: dict[str, bytes]) -> Any:
    """An item of a request; its picture is added to `pictures`. Raises `Unreadable`."""
    if not isinstance(value, dict):
        return value
    item = {name: part for name, part in value.items() if part is not None}
    if "image" not in item:
        return item
    image = _image(item["image"], folder)
    if isinstance(image, bytes):
        reference = reference_of(image)
        pictures[reference] = image
        image = reference
    return item | {"image": image}


def _image(value: Any, folder: Path) -> Any:
    """A picture's bytes, where a row has them or their file; all else as it is."""
    if isinstance(value, dict):  # as Hugging Face's datasets have it
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or value.startswith(_SENT_AS_THEY_ARE):
        return value
    if len(value) > _MAX_PATH_CHARS or "\0" in value:
        return value

    file = folder / value
    if file.is_file() or file.suffix:
        return read_picture(file)
    return value
