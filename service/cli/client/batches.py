"""Documents as request bodies of bounded size, made one after the other.

Does not depend on HTTP. Invariant: every document is in exactly one batch, or among the documents
that cannot be sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.cli.documents.items import Document
from service.cli.documents.pictures import Unreadable

_BODY_BYTES = 16 * 2**20
"""The size that a body is kept to where the service takes more: a broken connection then repeats
little."""
_SLACK_BYTES = 4_096
"""Bytes of a body that are neither options nor documents, at most."""

DocumentError = dict[str, Any]
"""An entry of an answer's `errors`: index, code and message."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of one request: their indexes among all documents, and their items as JSON."""

    indexes: Sequence[int]
    items: Sequence[bytes]

    def body(self, options: bytes) -> bytes:
        """A request with these documents; `options` are the other fields, an object as JSON."""
        return options[:-1] + b',"documents":[' + b",".join(self.items) + b"]}"

    def part(self, positions: Sequence[int]) -> Batch:
        """The batch of the documents at some positions of this one."""
        return Batch(
            [self.indexes[position] for position in positions],
            [self.items[position] for position in positions],
        )

    def halves(self) -> list[Batch]:
        """Two batches of half as many documents each."""
        middle, end = len(self.indexes) // 2, len(self.indexes)
        return [self.part(range(middle)), self.part(range(middle, end))]


def encoded(value: object) -> bytes:
    """A value as compact JSON. Raises `UnicodeEncodeError` for text that is not Unicode."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def batches(
    documents: Sequence[Document],
    *,
    max_documents: int,
    max_body_bytes: int,
    options_bytes: int,
    on_error: Callable[[DocumentError], None],
) -> Iterator[Batch]:
    """The documents as batches of up to `max_documents`, whose bodies have up to `max_body_bytes`.

    A picture is read when its batch is made. A document that cannot be read, or is too large by
    itself, is given to `on_error`.
    """
    limit = max_body_bytes - options_bytes - _SLACK_BYTES
    soft = min(limit, _BODY_BYTES)
    indexes: list[int] = []
    items: list[bytes] = []
    size = 0
    for index, document in enumerate(documents):
        try:
            item = encoded(document.item())
        except Unreadable as error:
            on_error({"index": index, "code": error.code, "message": str(error)})
            continue
        except UnicodeEncodeError:  # half of a surrogate pair would fail the whole request
            message = "The document has text that is not Unicode."
            on_error({"index": index, "code": "invalid_request", "message": message})
            continue
        if len(item) > limit:
            message = f"The document is larger than a request may be ({max_body_bytes:,} bytes)."
            on_error({"index": index, "code": "body_too_large", "message": message})
            continue

        if indexes and (len(indexes) == max_documents or size + len(item) > soft):
            yield Batch(indexes, items)
            indexes, items, size = [], [], 0
        indexes.append(index)
        items.append(item)
        size += len(item) + 1
    if indexes:
        yield Batch(indexes, items)
