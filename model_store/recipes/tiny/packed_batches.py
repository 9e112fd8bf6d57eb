"""Examples as packed batches: one row a query, its documents one after the other behind the prefix.

The trainer's `Batcher` cannot make these batches: it has a row for each pair, which sums in another
order and names no signs, so gmr-tiny's weights would not be reproduced. Depends on prompts and
positions, not on a network. Invariant: the mask of a row lets a document see the prefix and itself,
so each document is read exactly as in a row of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from model_store.families.family import Family
from model_store.families.prompt import Image, Item, Prompt
from model_store.networks.qwen2_5_vl_images import grid, patches, positions
from model_store.synthetic.cells import NUMBER_WORDS
from model_store.synthetic.examples import Example, Side
from model_store.synthetic.lexical import STOPWORDS
from model_store.synthetic.pictures import fitted

_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_Picture = npt.NDArray[np.uint8]


@dataclass(slots=True)
class PackedBatch:
    """`rows` queries with `documents` each, padded to `tokens`.

    Flat indexes count positions over all rows. A sign is the last token of a word or an image of a
    document; it is true where that word or image speaks for the document.
    """

    cells: list[str]
    ids: Tensor  # [rows, tokens]
    positions: Tensor  # [3, rows, tokens]
    owner: Tensor  # [rows, tokens]: 0 the prefix, n the n-th document, -1 padding
    last: Tensor  # [rows, documents]: flat indexes of the tokens from which scores are read
    pixels: Tensor | None  # [patches, 1176]
    grids: Tensor | None  # [images, 3]
    signs: Tensor  # [signs]: flat indexes
    truths: Tensor  # [signs]: 1.0 for a true sign, 0.0 for any other

    def mask(self) -> Tensor:
        """`[rows, 1, tokens, tokens]`: true where a position sees another."""
        tokens = self.ids.shape[1]
        earlier = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        shared = (self.owner[:, None, :] == 0) | (self.owner[:, None, :] == self.owner[:, :, None])
        return (earlier & shared)[:, None]


@dataclass(slots=True)
class _Row:
    """One example's tokens; `signs` are (position, truth)."""

    ids: list[int]
    owner: list[int]
    positions: npt.NDArray[np.int64]
    last: list[int]
    signs: list[tuple[int, bool]]
    pictures: list[_Picture]


class PackedBatcher:
    """Makes packed batches of examples for one family."""

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self._family = family
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._end = tokenizer.token_to_id("<|im_end|>")
        self._image_end = tokenizer.token_to_id("<|vision_end|>")
        self.readout, self.label_ids = family.readout, family.label_ids
        # Control tokens are no text, and must not look like words.
        self._pieces = [
            "\0" if token in added else tokenizer.decode([token])
            for token in range(tokenizer.get_vocab_size())
        ]

    def batch(self, examples: Sequence[Example]) -> PackedBatch:
        """One batch of examples that have equally many documents."""
        rows = [self._row(example) for example in examples]
        tokens = max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), tokens), np.int64)
        owner = np.full((len(rows), tokens), -1)
        columns = np.zeros((3, len(rows), tokens), np.int64)
        last: list[list[int]] = []
        signs: list[int] = []
        truths: list[float] = []
        pictures: list[_Picture] = []
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = row.ids
            owner[number, : len(row.ids)] = row.owner
            columns[:, number, : len(row.ids)] = row.positions
            last.append([number * tokens + position for position in row.last])
            signs += [number * tokens + position for position, _ in row.signs]
            truths += [float(truth) for _, truth in row.signs]
            pictures += row.pictures

        pixels, grids = pixel_values(pictures) if pictures else (None, None)
        return PackedBatch(
            cells=[example.cell for example in examples],
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(columns),
            owner=torch.from_numpy(owner),
            last=torch.tensor(last),
            pixels=pixels,
            grids=grids,
            signs=torch.tensor(signs, dtype=torch.long),
            truths=torch.tensor(truths),
        )

    def word_ids(self, words: Iterable[str]) -> list[int]:
        """Tokens of words inside a sentence, each once, in order."""
        found: set[int] = set()
        spaced = [f" {word}" for word in sorted(words)]
        for encoding in self._tokenizer.encode_batch(spaced, add_special_tokens=False):
            found |= set(encoding.ids)
        return sorted(found)

    def _row(self, example: Example) -> _Row:
        pictures: list[_Picture] = []
        items = [_item(side, pictures) for side in (example.query, *example.documents)]
        prompts = self._family.render((example.instruction,), items[0], items[1:], truncate=False)
        row = _Row([], [], np.empty((3, 0), np.int64), [], [], pictures)
        columns: list[npt.NDArray[np.int64]] = []
        start = 0
        for number, prompt in enumerate(prompts, start=1):
            assert isinstance(prompt, Prompt), "generated examples are short"
            if number == 1:
                prefix, start = positions(prompt.prefix, self._family.image_token_id)
                columns.append(prefix)
                row.ids += prompt.prefix.ids
                row.owner += [0] * len(prompt.prefix.ids)

            begin = len(row.ids)
            document = example.documents[number - 1]
            for position, truth in self._signs(prompt.suffix.ids, document, example):
                row.signs.append((begin + position, truth))
            row.ids += prompt.suffix.ids
            row.owner += [number] * len(prompt.suffix.ids)
            row.last.append(len(row.ids) - 1)
            columns.append(positions(prompt.suffix, self._family.image_token_id, start)[0])

        row.positions = np.concatenate(columns, axis=1)
        return row

    def _signs(
        self, ids: Sequence[int], document: Side, example: Example
    ) -> Iterator[tuple[int, bool]]:
        """(last token, truth) of each content word and each image of a document.

        A word's sign is true if the query has the word, an image's if the image shows what the
        relevant document's image shows.
        """
        pieces = [self._pieces[token] for token in ids[: ids.index(self._end)]]
        token_at = {end: token for token, end in enumerate(accumulate(map(len, pieces)))}
        for match in _WORD.finditer("".join(pieces), len("<Document>:")):
            word = match.group().lower()
            content = word not in STOPWORDS or word in NUMBER_WORDS
            if content and match.end() in token_at:
                yield token_at[match.end()], word in example.evidence

        relevant = _shown(example.documents[0])
        ends = [position for position, token in enumerate(ids) if token == self._image_end]
        for position, words in zip(ends, _shown(document), strict=True):
            yield position, words in relevant


def _shown(side: Side) -> list[frozenset[str]]:
    """The words that are true of each picture of a side."""
    return [part.info["words"] for part in side if not isinstance(part, str)]


def pixel_values(pictures: Sequence[_Picture]) -> tuple[Tensor, Tensor]:
    """Patches of pictures, one after the other, `[patches, 1176]`, and grids, `[pictures, 3]`."""
    pixels = np.concatenate([patches(picture) for picture in pictures])
    grids = [grid(_image(b"", picture)) for picture in pictures]
    return torch.from_numpy(pixels), torch.tensor(grids)


def _item(side: Side, pictures: list[_Picture]) -> Item:
    """A side as the family reads it; its pictures are appended to `pictures`."""
    parts: list[str | Image] = []
    for part in side:
        if isinstance(part, str):
            parts.append(part)
        else:
            picture = fitted(part)
            pictures.append(picture)
            parts.append(_image(str(len(pictures)).encode(), picture))
    return tuple(parts)


def _image(key: bytes, picture: _Picture) -> Image:
    return Image(key, picture.shape[1], picture.shape[0])
