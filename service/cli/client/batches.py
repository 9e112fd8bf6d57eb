"""Documents as request bodies of bounded size, made one after the other.

Does not depend on HTTP. Where the service stores pictures, items refer to them, and a batch has
them beside the items. Invariant: every document is in exactly one batch, or among the documents
that cannot be sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from service.cli.client.stored_pictures import (
    PUT_FROM_BYTES,
    Pictures,
    encoded_size,
    inlined,
    reference_of,
    references_in,
)
from service.cli.documents.pictures import Unreadable

_BODY_BYTES = 16 * 2**20
"""The size that a body is kept to where the service takes more: a broken connection then repeats
little."""
_SLACK_BYTES = 4_096
"""Bytes of a body that are neither options nor documents, at most."""

DocumentError = dict[str, Any]
"""An entry of an answer's `errors`: index, code and message."""


class Readable(Protocol):
    """A document that is read when its request is made."""

    def read(self) -> tuple[Any, bytes | None]:
        """The item to send, and the picture that belongs to it. Raises `Unreadable`."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of one request: their indexes among all documents, their items as JSON, and the
    pictures that items refer to. `puts` is how often the pictures were put for it, and `waits` how
    often it has waited for room."""

    indexes: Sequence[int]
    items: Sequence[bytes]
    pictures: Pictures = field(default_factory=dict)
    puts: int = 0
    waits: int = 0

    def body(self, options: bytes) -> bytes:
        """A request with these documents; `options` are the other fields, an object as JSON."""
        return options[:-1] + b',"documents":[' + b",".join(self.items) + b"]}"

    def part(self, positions: Sequence[int]) -> Batch:
        """The batch of the documents at some positions of this one."""
        return Batch(
            [self.indexes[position] for position in positions],
            [self.items[position] for position in positions],
            self.pictures,
            self.puts,
            self.waits,
        )

    def references(self) -> list[str]:
        """The pictures that the items refer to."""
        return [
            name for item in self.items for name in references_in(item) if name in self.pictures
        ]

    def inlined(self) -> Batch:
        """The batch with its pictures in its items."""
        return Batch(self.indexes, [inlined(item, self.pictures) for item in self.items])

    def halves(self) -> list[Batch]:
        """Two batches of half as many documents each."""
        middle, end = len(self.indexes) // 2, len(self.indexes)
        return [self.part(range(middle)), self.part(range(middle, end))]


def encoded(value: object) -> bytes:
    """A value as compact JSON. Raises `UnicodeEncodeError` for text that is not Unicode."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def batches(
    documents: Sequence[Readable],
    *,
    max_documents: int,
    max_body_bytes: int,
    options_bytes: int,
    on_error: Callable[[DocumentError], None],
    refer: bool = False,
) -> Iterator[Batch]:
    """The documents as batches of up to `max_documents`, whose bodies have up to `max_body_bytes`,
    with their pictures. With `refer`, items refer to pictures where a batch has many.

    A picture is read when its batch is made. A document that cannot be read, or is too large by
    itself, is given to `on_error`.
    """
    limit = max_body_bytes - options_bytes - _SLACK_BYTES
    soft = min(limit, _BODY_BYTES)
    indexes: list[int] = []
    items: list[bytes] = []
    pictures: dict[str, bytes] = {}
    size = 0
    for index, document in enumerate(documents):
        try:
            item, own = _encoded_item(document)
        except Unreadable as error:
            on_error({"index": index, "code": error.code, "message": str(error)})
            continue
        except UnicodeEncodeError:  # half of a surrogate pair would fail the whole request
            message = "The document has text that is not Unicode."
            on_error({"index": index, "code": "invalid_request", "message": message})
            continue
        item_size = len(item) + encoded_size(own)
        if item_size > limit:
            message = f"The document is larger than a request may be ({max_body_bytes:,} bytes)."
            on_error({"index": index, "code": "body_too_large", "message": message})
            continue

        if indexes and (len(indexes) == max_documents or size + item_size > soft):
            yield _batch(indexes, items, pictures, refer=refer)
            indexes, items, pictures, size = [], [], {}, 0
        indexes.append(index)
        items.append(item)
        pictures |= own
        size += item_size + 1
    if indexes:
        yield _batch(indexes, items, pictures, refer=refer)


def _encoded_item(document: Readable) -> tuple[bytes, dict[str, bytes]]:
    """A document's item as JSON, and the picture that it refers to. Raises `Unreadable`, and
    `UnicodeEncodeError`."""
    item, picture = document.read()
    if picture is None:
        return encoded(item), {}
    reference = reference_of(picture)
    return encoded({**item, "image": reference}), {reference: picture}


def _batch(
    indexes: Sequence[int], items: Sequence[bytes], pictures: Pictures, *, refer: bool
) -> Batch:
    """A batch that refers to its pictures where that is worth putting them."""
    batch = Batch(indexes, items, pictures)
    total = sum(map(len, pictures.values()))
    return batch if refer and total >= PUT_FROM_BYTES else batch.inlined()
