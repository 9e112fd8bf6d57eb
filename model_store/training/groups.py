"""Examples as groups: one positive and some negatives, drawn anew every epoch, as prompts and
pictures.

Depends on examples, the family and picture files, not on tensors. Invariant: a group is a function
of its example, the seed and the epoch alone, and its prompts are those that the service makes of
the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from model_store.errors import DataError
from model_store.families.family import Family
from model_store.families.images import PictureUnreadable, load_picture, picture_size
from model_store.families.prompt import (
    Image,
    Item,
    PairTooLong,
    PairUnreadable,
    Prompt,
    TooLongPart,
)
from model_store.training.data.rows import Example, Side

Pixels = npt.NDArray[np.uint8]
_CACHED_SIZES = 2**16
_TOO_LONG: dict[TooLongPart, str] = {
    "instruction": "the instruction alone has more than {limit} tokens.",
    "query": (
        "with all its text cut, the query has more than {limit} tokens: its images are too large."
    ),
    "pair": "with all its text cut, a pair has more than {limit} tokens: its images are too large.",
}


@dataclass(frozen=True, slots=True)
class Draw:
    """Negatives of an example, and the share of them that is random (paper, section 5.1: 16,
    1:1)."""

    negatives: int
    random_share: float
    seed: int

    def documents(self, example: Example, epoch: int) -> tuple[tuple[Side, ...], int]:
        """One positive and then the negatives of an epoch, and how many are missing.

        Neither kind stands in for the other: the ratio is what the paper holds, not the number.
        """
        chosen = self.numbers(example, epoch)
        documents = example.documents
        return tuple(documents[number] for number in chosen), self.negatives + 1 - len(chosen)

    def numbers(self, example: Example, epoch: int) -> list[int]:
        """The places of an epoch's documents among the positives and then the negatives."""
        generator = Random(f"{self.seed}/{epoch}/{example.id}")
        random = round(self.negatives * self.random_share)
        positives = len(example.positives)
        chosen = [generator.choice(range(positives))]
        for kind, count in (("random", random), ("hard", self.negatives - random)):
            places: list[int] = []
            for number, negative in enumerate(example.negatives, start=positives):
                if negative.kind == kind:
                    places.append(number)
            chosen += generator.sample(places, min(count, len(places)))
        return chosen


@dataclass(frozen=True, slots=True)
class Group:
    """An example's prompts, the positive's first, and its pictures by key.

    `location` is `file:line` of its row; `missing` the negatives that the example has too few;
    `teacher` the teacher's score of each prompt, None without them.
    """

    id: str
    location: str
    prompts: tuple[Prompt, ...]
    pictures: dict[bytes, Pixels]
    missing: int
    teacher: tuple[float, ...] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(prompt.prefix.ids) + len(prompt.suffix.ids) for prompt in self.prompts)


class Grouper:
    """Makes groups for one checkpoint.

    Its family may not be picklable: processes of a loader get it by fork.
    """

    def __init__(self, family: Family, instruction: str, draw: Draw) -> None:
        """`instruction` stands in for an example that has none."""
        self._family, self._instruction, self._draw = family, instruction, draw
        self._bounds: dict[str, int] = {}
        if family.images is not None:
            self._bounds = {
                "cell": family.images.cell,
                "min_pixels": family.images.min_pixels,
                "max_pixels": family.images.max_pixels,
            }

    def group(self, example: Example, epoch: int) -> Group:
        """An epoch's group of an example; raises `DataError`, which names file and line."""
        documents, missing = self._draw.documents(example, epoch)
        group = self.group_of(example, documents, missing)
        if example.teacher_scores is None:
            return group

        chosen = self._draw.numbers(example, epoch)
        return replace(group, teacher=tuple(example.teacher_scores[number] for number in chosen))

    def group_of(self, example: Example, documents: Sequence[Side], missing: int = 0) -> Group:
        """An example's query with given documents; raises `DataError`, which names file and
        line."""
        sides = (example.query, *documents)
        self._refuse_images(example, sides)
        pictures: dict[bytes, Pixels] = {}
        for side in sides:
            if side.image is not None and _key(side.image) not in pictures:
                pictures[_key(side.image)] = self._picture(side.image, example)

        items = [item_of(side, _image_of(side, pictures)) for side in sides]
        return Group(example.id, example.location, self._prompts(example, items), pictures, missing)

    def problem(self, example: Example) -> str | None:
        """A sentence on an example that will fail in some epoch; opens pictures' headers, decodes
        none."""
        documents, _ = self._draw.documents(example, 0)
        if len(documents) == 1:
            return (
                f"{example.location}: there are no negatives of the kinds that data.random_share"
                " asks for."
            )

        return self.unreadable(example)

    def unreadable(self, example: Example) -> str | None:
        """A sentence on an example with a pair that cannot be read; opens pictures' headers,
        decodes none."""
        sides = (example.query, *example.documents)
        try:
            self._refuse_images(example, sides)
            # without their texts, which are cut where a pair is too long
            items = [self._header(side) for side in sides]
            self._prompts(example, items)
        except DataError as error:
            return str(error)
        except PictureUnreadable as error:
            return f"{example.location}: an image cannot be used: {error}."

        return None

    def _refuse_images(self, example: Example, sides: Sequence[Side]) -> None:
        """Raise `DataError` where a side has an image and the family reads none."""
        if self._family.images is None and any(side.image is not None for side in sides):
            raise DataError(
                f"{example.location}: the row has an image, and the model family"
                f" {self._family.name} reads text only."
            )

    def _picture(self, path: Path, example: Example) -> Pixels:
        try:
            return np.asarray(load_picture(path, **self._bounds))
        except PictureUnreadable as error:
            raise DataError(
                f"{example.location}: the image {path.name!r} cannot be used: {error}."
            ) from None

    def _header(self, side: Side) -> Item:
        """A side's image alone, if any, with the size that it will have by its header."""
        if side.image is None:
            return ()
        return (Image(_key(side.image), *_size(side.image, **self._bounds)),)

    def _prompts(self, example: Example, items: Sequence[Item]) -> tuple[Prompt, ...]:
        """Prompts of the query, which is the first item, with each of the other items."""
        instruction = example.instruction or self._instruction
        prompts: list[Prompt] = []
        for prompt in self._family.render((instruction,), items[0], items[1:]):
            if isinstance(prompt, PairTooLong):
                raise DataError(
                    f"{example.location}: {_TOO_LONG[prompt.part].format(limit=prompt.limit)}"
                )
            if isinstance(prompt, PairUnreadable):
                raise DataError(
                    f"{example.location}: the model's prompt has no place for the parts of a side."
                )
            prompts.append(prompt)

        return tuple(prompts)


def _key(path: Path) -> bytes:
    return str(path).encode()


def _image_of(side: Side, pictures: dict[bytes, Pixels]) -> Image | None:
    if side.image is None:
        return None

    height, width, _ = pictures[_key(side.image)].shape
    return Image(_key(side.image), width, height)


def item_of(side: Side, image: Image | None) -> Item:
    """A side as the template has it: the image before the text."""
    parts: list[str | Image] = []
    if image is not None:
        parts.append(image)
    if side.text:
        parts.append(side.text)
    return tuple(parts)


@lru_cache(_CACHED_SIZES)
def _size(path: Path, **bounds: int) -> tuple[int, int]:
    return picture_size(path, **bounds)
