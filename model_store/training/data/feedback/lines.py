"""Lines of a folder of feedback, as the service writes them (docs/feedback.md).

Does not depend on files. Fields that are not known are left out, so that files of a later version
can be read. Invariant: a line that is decoded is within the bounds of a training row's ids.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from model_store.errors import DataError
from model_store.training.data.rows import MAX_SIDES

VERSION = 1
MAX_RESULTS = 100_000
LONGEST_WINDOW_SECONDS = 31 * 86_400
"""Gateways may take feedback on an answer for so long (RERANK_FEEDBACK_WINDOW_SECONDS)."""

Id = Annotated[str, msgspec.Meta(max_length=256)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=MAX_RESULTS)]
Part = dict[str, str]
"""A text, or an image by its digest: `{"text": ...}` or `{"image": "sha256:..."}`."""


class _Line(msgspec.Struct, frozen=True, tag_field="kind"):
    v: int
    answer: Id
    request_id: Id | None
    tenant: Id
    at: float


class Result(msgspec.Struct, frozen=True):
    """One result of an answer."""

    index: Index
    id: Id | int | None = None


class AnswerLine(_Line, frozen=True, tag="answer"):
    """An answer that has feedback: its results, best first."""

    model: str
    digest: str
    results: Annotated[list[Result], msgspec.Meta(max_length=MAX_RESULTS)]


class Event(msgspec.Struct, frozen=True):
    """A click on a result, or its grade."""

    index: Index
    clicked: bool = False
    grade: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None


class EventsLine(_Line, frozen=True, tag="events"):
    """Events on an answer, and the results that the user saw, in the order of the page."""

    events: Annotated[list[Event], msgspec.Meta(max_length=MAX_SIDES)]
    shown: Annotated[list[Index], msgspec.Meta(max_length=MAX_RESULTS)] | None = None


class ContentLine(_Line, frozen=True, tag="content"):
    """The contents of an answer: the query, the documents by index, the instruction if the request
    named one."""

    query: list[Part]
    documents: dict[str, list[Part]]
    instruction: str | None = None


class ForgetLine(_Line, frozen=True, tag="forget"):
    """A request that is to be forgotten; None for all requests of a tenant until then."""


Line = AnswerLine | EventsLine | ContentLine | ForgetLine

_decoder = msgspec.json.Decoder(Line)


def decode_line(line: bytes, location: str) -> Line:
    """The line at `location` (`file:line`); raises `DataError`."""
    try:
        decoded: Line = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise DataError(f"{location}: this is no line of feedback.") from None
    if decoded.v != VERSION:
        raise DataError(
            f"{location}: the line is of version {decoded.v}, and this command reads {VERSION}."
        )
    return decoded


def forget_line(tenant: str, request_id: str | None, at: float) -> bytes:
    """The line that has a request forgotten, or all requests of a tenant."""
    row = ForgetLine(VERSION, "", request_id, tenant, at)
    return msgspec.json.encode(row) + b"\n"
