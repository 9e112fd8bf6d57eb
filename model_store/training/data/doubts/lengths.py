"""Doubts about length: pairs of more tokens than a model reads, counted by its own tokenizer.

Depends on a model's family, and reads headers of pictures. Invariant: a pair is counted as it is
rendered for the model, and what is said to be cut is cut in training and in the service.
"""

from __future__ import annotations

from collections.abc import Iterator

from model_store.families.family import Family
from model_store.families.images import PictureUnreadable, picture_size
from model_store.families.prompt import Image, Item, PairTooLong, PairUnreadable
from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.rows import Example, Side
from model_store.training.groups import item_of


class TokenCounts:
    """Renders each pair of each row, uncut."""

    def __init__(self, family: Family, instruction: str, name: str) -> None:
        """`instruction` stands in for a row that has none; `name` is the model's."""
        self._family, self._instruction, self.name = family, instruction, name
        self.prefixes: list[int] = []
        self.documents: list[int] = []
        self.image_tokens: list[int] = []
        self._cut, self._unreadable = Places(), Places()
        self._pairs = 0

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`; a picture that cannot be read is a fault, and not looked for here."""
        names = [name for name, _ in example.named_documents()]
        sides = (example.query, *example.documents)
        if self._family.images is None and any(side.image for side in sides):
            self._pairs += len(names)
            for name in names:
                self._unreadable.add(line, name)
            return

        try:
            query, *documents = [self._item(side) for side in sides]
        except PictureUnreadable:
            return

        instruction = example.instruction or self._instruction
        prompts = self._family.render((instruction,), query, documents, truncate=False)
        for name, prompt, document in zip(names, prompts, documents, strict=True):
            self._pairs += 1
            if isinstance(prompt, PairTooLong):
                self._cut.add(line, name)
            elif isinstance(prompt, PairUnreadable):
                self._unreadable.add(line, name)
            else:
                self.prefixes.append(len(prompt.prefix.ids))
                self.documents.append(len(prompt.suffix.ids))
                self.image_tokens.append(self._tokens_of_images(document))

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        limit = self._family.max_tokens
        yield from found(
            "cut",
            self._cut,
            "pair",
            self._pairs,
            f"Pairs have more than the {limit:,} tokens that {self.name} reads, and will be cut:"
            " first the document's text, from its end.",
        )
        yield from found(
            "unreadable",
            self._unreadable,
            "pair",
            self._pairs,
            f"Pairs have parts that {self.name} cannot read: `gmr train` refuses them.",
        )

    def _item(self, side: Side) -> Item:
        image, rules = None, self._family.images
        if side.image is not None and rules is not None:
            size = picture_size(
                side.image,
                cell=rules.cell,
                min_pixels=rules.min_pixels,
                max_pixels=rules.max_pixels,
            )
            image = Image(str(side.image).encode(), *size)
        return item_of(side, image)

    def _tokens_of_images(self, item: Item) -> int:
        rules = self._family.images
        if rules is None:
            return 0
        return sum(rules.tokens(part) for part in item if isinstance(part, Image))
