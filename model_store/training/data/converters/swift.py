"""ms-swift's rows for rerankers: conversations with lists of images, in JSON lines or parquet.

A row has `messages` (the query, perhaps after the instruction as `system`), `positive_messages` and
`negative_messages` (a conversation for each document), and `images`, `positive_images` and
`negative_images`. A text has `<image>` at the position of an image. Does not depend on other
layouts. Invariant: as in `assemble`; a text has as many tags as images, or its row is bad.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from model_store.output_files import check_outputs
from model_store.parts import file_identity
from model_store.training.data.converters.assemble import (
    ShowProgress,
    convert,
    hard_negatives,
    valid_example_line,
    without_progress,
)
from model_store.training.data.converters.outcomes import BadRow, Outcomes, Skipped, clean_text
from model_store.training.data.converters.pictures import Pictures
from model_store.training.data.converters.records import (
    Record,
    RecordReader,
    find_files,
    read_records,
)
from model_store.training.data.image_files import ImageMode
from model_store.training.data.rows import MAX_SIDES, Example, Side

TAG = "<image>"
_EMPTY = Side(None, None)


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
_rows = RecordReader(
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
    show_progress: ShowProgress = without_progress,
) -> Outcomes:
    """Write `target`; image paths are relative to `root`, or absolute and below it.

    `instruction` is for rows without a `system` text. Raises `DataError`.
    """
    files = find_files(source)
    check_outputs(target, inputs=files)
    pictures = Pictures(root, target.parent, image_mode)

    def example(record: Record, outcomes: Outcomes) -> bytes:
        row = _rows.read(record)
        reader = _ConversationReader(pictures, record.location, outcomes)
        system, query = reader.read(row.messages, row.images or [], "messages")
        if query == _EMPTY:
            raise Skipped("empty query")
        positives = reader.documents(row.positive_messages, row.positive_images, "positive")
        if not positives:
            raise Skipped("no relevant document")
        negatives = reader.documents(row.negative_messages or [], row.negative_images, "negative")

        stated = [text for text in (row.system, system) if text and text.strip()]
        made = Example(
            id=str(row.id) if row.id is not None else Path(record.location).name,
            instruction=stated[0] if stated else instruction,
            query=query,
            positives=tuple(positives),
            negatives=hard_negatives(negatives, positives, outcomes),
            location=record.location,
        )
        return valid_example_line(made, target.parent)

    described: dict[str, Any] = {
        "layout": "swift",
        "files": [file_identity(path) for path in files],
        "root": str(root),
    }
    # Reports of finished conversions have this key: another name would convert them again.
    described |= {"keeping": image_mode, "instruction": instruction}
    return convert(
        target,
        described,
        read_records(files),
        example,
        max_bad=max_bad,
        show_progress=show_progress,
    )


class _ConversationReader:
    """Reads one row's conversations as sides."""

    def __init__(self, pictures: Pictures, location: str, outcomes: Outcomes) -> None:
        self._pictures, self._location, self._outcomes = pictures, location, outcomes

    def documents(
        self, conversations: list[_Conversation], images: list[_Images] | None, kind: str
    ) -> list[Side]:
        """A side for each conversation that is not empty; raises `BadRow`."""
        if len(conversations) > MAX_SIDES:
            raise BadRow(
                f"{self._location}: there are {len(conversations)} {kind}_messages, and {MAX_SIDES}"
                " are allowed."
            )
        if images and len(images) != len(conversations):
            raise BadRow(
                f"{self._location}: there are {len(conversations)} {kind}_messages and"
                f" {len(images)} {kind}_images."
            )

        sides = []
        for number, conversation in enumerate(conversations):
            shown = images[number] if images else []
            _, side = self.read(conversation, shown, f"{kind}_messages[{number}]")
            if side != _EMPTY:
                sides.append(side)
        self._outcomes.counts[f"empty {kind}s left out"] += len(conversations) - len(sides)
        return sides

    def read(
        self, conversation: _Conversation, images: _Images, name: str
    ) -> tuple[str | None, Side]:
        """The system's text, and the one other message with its image; raises `BadRow`."""
        system = [message.content for message in conversation if message.role == "system"]
        contents = [message.content for message in conversation if message.role != "system"]
        if len(contents) != 1:
            raise BadRow(
                f"{self._location}: {name} has {len(contents)} messages beside the system's, and"
                " there must be 1."
            )

        (content,) = contents
        tags = content.count(TAG)
        if tags != len(images):
            raise BadRow(f"{self._location}: {name} has {tags} {TAG} and {len(images)} images.")
        if len(images) > 1:
            raise BadRow(
                f"{self._location}: {name} has {len(images)} images, and a side has at most 1."
            )
        return system[0] if system else None, Side(self._text(content), self._image(images))

    def _text(self, content: str) -> str | None:
        """A message's text without the tag of its image; a side has the image before the text."""
        before, tag, after = content.partition(TAG)
        if not tag:
            return clean_text(content, self._outcomes)
        if before.strip():
            self._outcomes.counts["images moved before their text"] += 1
        return clean_text((before + after).strip(), self._outcomes)

    def _image(self, images: _Images) -> Path | None:
        if not images:
            return None
        image = images[0]
        return self._pictures.keep(image if isinstance(image, str) else image.path, self._location)
