"""Lines of the folder of feedback: JSON objects that `gmr data feedback` reads.

The module depends on records, on no file. Each line says what it is (`kind`), of which answer, of
which request and of which tenant, and when it was made. Invariant: a line ends with its only line
feed, and is no longer than a reader takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from service.feedback_api import FeedbackEvent
from service.gateway.feedback.record import Answered, AnswerRecord
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.references import reference_of

Kind = Literal["answer", "content", "events", "forget"]
VERSION = 1
MAX_LINE_BYTES = 8 * 2**20
"""Half of what a reader of training data takes."""


def answer_line(record: AnswerRecord) -> bytes:
    """An answer without its content."""
    return _line(
        "answer", record.answer, record.request_id, record.tenant, record.at, record.line()
    )


def events_line(
    record: AnswerRecord,
    at: float,
    shown: Sequence[int] | None,
    events: Sequence[FeedbackEvent],
) -> bytes:
    """The events of one request about an answer; `shown` are the indices that the user saw."""
    listed = [event.model_dump(exclude_none=True) for event in events]
    fields: dict[str, Any] = {"events": listed}
    if shown is not None:
        fields["shown"] = list(shown)
    return _line("events", record.answer, record.request_id, record.tenant, at, fields)


def content_line(made: Answered) -> bytes:
    """The query, the instruction and the documents of an answer; pictures by their digests."""
    fields: dict[str, Any] = {"query": _parts(made.query)}
    if made.instruction is not None:
        fields["instruction"] = made.instruction
    fields["documents"] = {
        str(document.index): _parts(document.content) for document in made.documents
    }
    return _line("content", made.answer, made.request_id, made.tenant, made.at, fields)


def forget_line(tenant: str, request_id: str, at: float) -> bytes:
    """A request that a caller wants to be forgotten: lines before this one do not count."""
    return _line("forget", b"", request_id, tenant, at, {})


def pictures_of(made: Answered) -> Iterator[Picture]:
    """The pictures of an answer's contents."""
    for content in (made.query, *(document.content for document in made.documents)):
        for part in content:
            if isinstance(part, Picture):
                yield part


def _parts(content: Content) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for part in content:
        if isinstance(part, Text):
            parts.append({"text": part.text})
        else:
            parts.append({"image": reference_of(part.digest)})
    return parts


def _line(
    kind: Kind,
    answer: bytes,
    request_id: str,
    tenant: str,
    at: float,
    fields: Mapping[str, Any],
) -> bytes:
    row = {
        "v": VERSION,
        "kind": kind,
        "answer": answer.hex(),
        "request_id": request_id,
        "tenant": tenant,
        "at": round(at, 3),
        **fields,
    }
    return msgspec.json.encode(row) + b"\n"
