"""Half a prompt before it has token ids: control tokens, images, and runs of text that may be cut.

Knows a tokenizer and a limit, no template. Invariant: of a run only `text` is ever cut, from its
end, and the ids of a run are those of its remaining texts joined, so a cut run reads as if the user
had sent the shorter text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model_store.families.prompt import Image, Segment
from model_store.families.qwen2_5_vl import image_tokens
from model_store.families.tokens import LiteralTokenizer


@dataclass(frozen=True, slots=True)
class Run:
    """Texts that are encoded as one: the template's before, then `text`, which may be cut."""

    before: str
    text: str = ""
    after: str = ""

    @property
    def joined(self) -> str:
        """All three."""
        return self.before + self.text + self.after

    def then_fixed(self, text: str) -> Run:
        """The run with more text that may not be cut."""
        if self.text:
            return Run(self.before, self.text, self.after + text)
        return Run(self.before + text)

    def then(self, text: str) -> Run:
        """The run with more text that may be cut. What follows a cut text cannot be cut as well."""
        return Run(self.before, self.text + text)


Part = int | Image | Run
"""A control token by its id, an image, or a run of text."""
Row = Sequence[Part]


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The ids around an image's placeholders, and theirs."""

    start: int
    pad: int
    end: int

    def of(self, image: Image) -> list[int]:
        """An image's ids."""
        return [self.start, *[self.pad] * image_tokens(image), self.end]


class RowEncoder:
    """Turns rows into segments. Reads no more of a text than could have `limit` tokens."""

    def __init__(self, tokenizer: LiteralTokenizer, images: ImageTokens, limit: int) -> None:
        self._tokenizer, self._images, self._limit = tokenizer, images, limit

    def segments(self, rows: Sequence[Row]) -> list[Segment | None]:
        """The segment of each row; None for one of which a run alone has more than `limit` tokens.

        All runs of all rows go through the tokenizer in one batch.
        """
        runs = [part.joined for row in rows for part in row if isinstance(part, Run)]
        encoded = iter(self._tokenizer.encode_within(runs, self._limit))
        found: list[Segment | None] = []
        for row in rows:
            ids = [next(encoded) if isinstance(part, Run) else self._fixed(part) for part in row]
            found.append(_segment(row, ids))
        return found

    def cut(self, row: Row, limit: int) -> Segment | None:
        """The segment of `row` without the end of its text, of at most `limit` tokens if possible.

        The last text is cut first, then the one before it; images stay. None where a text that
        may not be cut has more tokens than the encoder's own limit.
        """
        places = [place for place, part in enumerate(row) if isinstance(part, Run) and part.text]
        ids = [
            # What is cut first is not read before it is cut.
            [] if place in places[-1:] else self._read(part)
            for place, part in enumerate(row)
        ]
        for place in reversed(places):
            run, others = row[place], _total([*ids[:place], *ids[place + 1 :]])
            assert isinstance(run, Run)
            if others is None or others >= limit:
                ids[place] = self._read(Run(run.before + run.after))
                continue

            _, ids[place] = self._tokenizer.fit(run.before, run.text, run.after, limit - others)
            if _fits(ids, limit):
                break
        return _segment(row, ids)

    def _read(self, part: Part) -> list[int] | None:
        if isinstance(part, Run):
            return self._tokenizer.encode_within([part.joined], self._limit)[0]
        return self._fixed(part)

    def _fixed(self, part: int | Image) -> list[int]:
        return [part] if isinstance(part, int) else self._images.of(part)


def _total(ids: Sequence[list[int] | None]) -> int | None:
    """How many ids there are; None where there are more than were read."""
    total = 0
    for some in ids:
        if some is None:
            return None
        total += len(some)
    return total


def _fits(ids: Sequence[list[int] | None], limit: int) -> bool:
    total = _total(ids)
    return total is not None and total <= limit


def _segment(row: Row, ids: Sequence[list[int] | None]) -> Segment | None:
    joined: list[int] = []
    for some in ids:
        if some is None:
            return None
        joined += some
    return Segment(tuple(joined), tuple(part for part in row if isinstance(part, Image)))
