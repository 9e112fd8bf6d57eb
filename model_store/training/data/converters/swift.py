"""ms-swift's rows for rerankers: conversations, with images named beside them.

A row: `messages` (the query, and before it perhaps the instruction, as `system`),
`positive_messages` and `negative_messages` (a conversation each document), `images`,
`positive_images` and `negative_images`; a text says `<image>` where an image stands. Knows that
form, JSON lines or parquet. Invariant: as in `assemble`; a text with as many tags as images, or the
row is bad.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from model_store.training.data.converters.assemble import (
    ShowProgress,
    checked_line,
    convert,
    no_progress,
)
from model_store.training.data.converters.flagembedding import as_negatives, without
from model_store.training.data.converters.outcomes import BadRow, Converted, Skipped, text_within
from model_store.training.data.converters.pictures import Pictures
from model_store.training.data.converters.records import Reader, Record, files_of, read_records
from model_store.training.data.image_files import ImageMode
from model_store.training.data.resumable import identity
from model_store.training.data.row_files import check_outputs
from model_store.training.data.rows import MAX_SIDES, Example, Side

TAG = "<image>"


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str
    loss: Any = None


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    bytes: None = None


_Images = list[str | _Image]
_Conversation = list[_Message]


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    messages: _Conversation
    positive_messages: list[_Conversation]
    negative_messages: list[_Conversation] | None = None
    images: _Images | None = None
    positive_images: list[_Images] | None = None
    negative_images: list[_Images] | None = None
    system: str | None = None
    id: str | int | None = None
    channel: Any = None


_MESSAGE = _Message.__struct_fields__
_rows = Reader(
    _Row,
    {
        "": _Row.__struct_fields__,
        "messages": _MESSAGE,
        "positive_messages": _MESSAGE,
        "negative_messages": _MESSAGE,
        "images": _Image.__struct_fields__,
        "positive_images": _Image.__struct_fields__,
        "negative_images": _Image.__struct_fields__,
    },
)


def convert_swift(
    source: Path,
    target: Path,
    *,
    root: Path,
    instruction: str | None = None,
    image_mode: ImageMode = "reference",
    max_bad: int = 0,
    show_progress: ShowProgress = no_progress,
) -> Converted:
    """Write `target`; image paths are relative to `root`, or lie below it. `instruction` is of rows
    without a `system` text.

    Raises `DataError`.
    """
    files = files_of(source)
    check_outputs(target, inputs=files)
    pictures = Pictures(root, target.parent, image_mode)

    def example(record: Record, done: Converted) -> bytes:
        row, place = _rows.read(record), record[0]
        reading = _Reading(pictures, place, done)
        system, query = reading.side(row.messages, row.images or [], "messages")
        if query == Side(None, None):
            raise Skipped("empty query")
        positives = reading.documents(row.positive_messages, row.positive_images, "positive")
        if not positives:
            raise Skipped("no relevant document")
        negatives = reading.documents(row.negative_messages or [], row.negative_images, "negative")
        different = without(negatives, positives, done)
        name = str(row.id) if row.id is not None else Path(place).name
        told = next((text for text in (row.system, system) if text and text.strip()), instruction)
        made = Example(name, told, query, tuple(positives), as_negatives(different), place)
        return checked_line(made, target.parent)

    described: dict[str, Any] = {
        "layout": "swift",
        "files": [identity(path) for path in files],
        "root": str(root),
    }
    described |= {"keeping": image_mode, "instruction": instruction}
    return convert(
        target,
        described,
        read_records(files),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


class _Reading:
    """One row's conversations as sides."""

    def __init__(self, pictures: Pictures, place: str, done: Converted) -> None:
        self._pictures, self._place, self._done = pictures, place, done

    def documents(
        self, conversations: list[_Conversation], images: list[_Images] | None, kind: str
    ) -> list[Side]:
        """A side each conversation, empty ones left out; raises `BadRow`."""
        if len(conversations) > MAX_SIDES:
            raise BadRow(
                f"{self._place}: there are {len(conversations)} {kind}_messages, and {MAX_SIDES}"
                " are allowed."
            )
        if images and len(images) != len(conversations):
            raise BadRow(
                f"{self._place}: there are {len(conversations)} {kind}_messages and {len(images)}"
                f" {kind}_images."
            )
        sides = []
        for number, conversation in enumerate(conversations):
            _, side = self.side(
                conversation, images[number] if images else [], f"{kind}_messages[{number}]"
            )
            sides.append(side)
        filled = [side for side in sides if side != Side(None, None)]
        self._done.counts[f"empty {kind}s left out"] += len(sides) - len(filled)
        return filled

    def side(
        self, conversation: _Conversation, images: _Images, name: str
    ) -> tuple[str | None, Side]:
        """The system's text, and the one other message with its image; raises `BadRow`."""
        system = next(
            (message.content for message in conversation if message.role == "system"), None
        )
        others = [message.content for message in conversation if message.role != "system"]
        if len(others) != 1:
            raise BadRow(
                f"{self._place}: {name} has {len(others)} messages beside the system's, and there"
                " must be 1."
            )
        if others[0].count(TAG) != len(images):
            raise BadRow(
                f"{self._place}: {name} has {others[0].count(TAG)} {TAG} and {len(images)} images."
            )
        if len(images) > 1:
            raise BadRow(
                f"{self._place}: {name} has {len(images)} images, and a side has at most 1."
            )
        before, tag, after = others[0].partition(TAG)
        if tag and before.strip():
            self._done.counts["images moved before their text"] += 1
        text = text_within((before + after).strip() if tag else before, self._done)
        image = None
        if images:
            named = images[0] if isinstance(images[0], str) else images[0].path
            image = self._pictures.keep(named, self._place)
        return system, Side(text, image)
