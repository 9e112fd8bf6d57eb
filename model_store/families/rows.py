"""Half a prompt before it has token ids: control tokens, images, and runs of text that may be cut.

Depends on a tokenizer and a limit, not on a template. Invariant: only the `text` of a run is ever
cut, from its end, and the ids of a run are those of its remaining texts joined, so a cut run reads
as if the user had sent the shorter text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.family import ImageRules
from model_store.families.prompt import Image, Segment
from model_store.families.tokens import LiteralTokenizer


@dataclass(frozen=True, slots=True)
class Run:
    """Texts that are encoded as one. `text` may be cut; the template's around it may not."""

    before: str
    text: str = ""
    after: str = ""

    @property
    def joined(self) -> str:
        """The three texts as one."""
        return self.before + self.text + self.after

    def then_fixed(self, text: str) -> Run:
        """The run with more text that may not be cut."""
        if self.text:
            return Run(self.before, self.text, self.after + text)
        return Run(self.before + text)

    def then(self, text: str) -> Run:
        """The run with more text that may be cut."""
        return Run(self.before, self.text + text)


Part = int | Image | Run
"""A control token by its id, an image, or a run of text."""
Row = Sequence[Part]


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The control tokens around an image's placeholders, and the rules of their number."""

    start: int | None
    """None where the template itself has the tokens around an image."""
    end: int | None
    rules: ImageRules

    def ids(self, image: Image) -> list[int]:
        """An image's ids: the placeholders between the control tokens."""
        placeholders = [self.rules.token_id] * self.rules.tokens(image)
        start = [] if self.start is None else [self.start]
        return [*start, *placeholders, *([] if self.end is None else [self.end])]


class RowEncoder:
    """Encodes rows. It reads no more of a text than could have `limit` tokens.

    Without `images` no row may contain an image.
    """

    def __init__(self, tokenizer: LiteralTokenizer, images: ImageTokens | None, limit: int) -> None:
        self._tokenizer, self._images, self._limit = tokenizer, images, limit

    def segments(self, rows: Sequence[Row]) -> list[Segment | None]:
        """The segment of each row; None for a row with a run of more than `limit` tokens.

        All runs of all rows go through the tokenizer in one batch.
        """
        runs: list[str] = []
        for row in rows:
            runs += [part.joined for part in row if isinstance(part, Run)]
        encoded = iter(self._tokenizer.encode_within(runs, self._limit))

        segments: list[Segment | None] = []
        for row in rows:
            ids = [next(encoded) if isinstance(part, Run) else self._fixed(part) for part in row]
            segments.append(_segment(row, ids))
        return segments

    def cut(self, row: Row, limit: int) -> Segment | None:
        """The segment of `row` without the end of its text, of at most `limit` tokens if possible.

        The last text is cut first, then the one before it; images stay. Returns None where a text
        that may not be cut has more tokens than the encoder's own limit.
        """
        runs = [index for index, part in enumerate(row) if isinstance(part, Run) and part.text]
        last = runs[-1:]

        ids: list[list[int] | None] = []
        for index, part in enumerate(row):
            # the last run is cut first, and not read before
            ids.append([] if index in last else self._read(part))

        for index in reversed(runs):
            run = row[index]
            assert isinstance(run, Run)
            rest = _total([*ids[:index], *ids[index + 1 :]])
            if rest is None or rest >= limit:
                ids[index] = self._read(Run(run.before + run.after))
                continue

            _, ids[index] = self._tokenizer.fit(run.before, run.text, run.after, limit - rest)
            if _fits(ids, limit):
                break
        return _segment(row, ids)

    def _read(self, part: Part) -> list[int] | None:
        if isinstance(part, Run):
            return self._tokenizer.encode_within([part.joined], self._limit)[0]
        return self._fixed(part)

    def _fixed(self, part: int | Image) -> list[int]:
        if isinstance(part, int):
            return [part]
        assert self._images is not None
        return self._images.ids(part)


def _total(ids: Sequence[list[int] | None]) -> int | None:
    """The number of ids of all parts; None where a part was not read to its end."""
    total = 0
    for part_ids in ids:
        if part_ids is None:
            return None
        total += len(part_ids)
    return total


def _fits(ids: Sequence[list[int] | None], limit: int) -> bool:
    total = _total(ids)
    return total is not None and total <= limit


def _segment(row: Row, ids: Sequence[list[int] | None]) -> Segment | None:
    joined: list[int] = []
    for part_ids in ids:
        if part_ids is None:
            return None
        joined += part_ids

    images = tuple(part for part in row if isinstance(part, Image))
    return Segment(tuple(joined), images)
