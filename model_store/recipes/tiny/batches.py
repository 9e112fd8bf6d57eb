"""Examples as tensors: one row a query, its documents side by side behind the shared prefix.

Knows prompts and positions, no network. Invariant: a row's mask lets a document see the prefix and
itself, so each of its documents is read exactly as if it stood alone.
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


@dataclass(slots=True)
class Batch:
    """`rows` queries with `documents` each, padded to `tokens`.

    Flat indexes count positions over all rows.
    """

    cells: list[str]
    ids: Tensor  # [rows, tokens]
    positions: Tensor  # [3, rows, tokens]
    owner: Tensor  # [rows, tokens]: 0 the prefix, n the n-th document, -1 padding
    last: Tensor  # [rows, documents] flat indexes of the positions that answer
    pixels: Tensor | None  # [patches, 1176]
    grids: Tensor | None  # [images, 3]
    # [signs] flat indexes: the last token of each word of a document, and of each of its images
    signs: Tensor
    truths: Tensor  # [signs] whether that word or image speaks for the document

    def mask(self) -> Tensor:
        """`[rows, 1, tokens, tokens]`: what each position may see."""
        tokens = self.ids.shape[1]
        earlier = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        shared = (self.owner[:, None, :] == 0) | (self.owner[:, None, :] == self.owner[:, :, None])
        return (earlier & shared)[:, None]


@dataclass(slots=True)
class _Row:
    """One example's tokens; `signs` are (position, whether it speaks for its document)."""

    ids: list[int]
    owner: list[int]
    positions: npt.NDArray[np.int64]
    last: list[int]
    signs: list[tuple[int, bool]]
    pictures: list[npt.NDArray[np.uint8]]


class Batcher:
    """Turns examples into batches for one family."""

    def __init__(self, family: Family, tokenizer: Tokenizer) -> None:
        self._family = family
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._end = tokenizer.token_to_id("<|im_end|>")
        self._image_end = tokenizer.token_to_id("<|vision_end|>")
        # Control tokens say nothing; they must not look like words.
        self.label_ids = family.label_ids
        self._pieces = [
            "\0" if token in added else tokenizer.decode([token])
            for token in range(tokenizer.get_vocab_size())
        ]

    def batch(self, examples: Sequence[Example]) -> Batch:
        """One batch; all examples must have as many documents."""
        rows = [self._row(example) for example in examples]
        tokens = max(len(row.ids) for row in rows)
        ids, owner = np.zeros((len(rows), tokens), np.int64), np.full((len(rows), tokens), -1)
        place = np.zeros((3, len(rows), tokens), np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = row.ids
            owner[number, : len(row.ids)] = row.owner
            place[:, number, : len(row.ids)] = row.positions
        signs = [
            (number * tokens + at, truth)
            for number, row in enumerate(rows)
            for at, truth in row.signs
        ]
        pictures = [picture for row in rows for picture in row.pictures]
        pixels, grids = pixel_values(pictures) if pictures else (None, None)
        return Batch(
            cells=[example.cell for example in examples],
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(place),
            owner=torch.from_numpy(owner),
            last=torch.tensor(
                [[number * tokens + at for at in row.last] for number, row in enumerate(rows)]
            ),
            pixels=pixels,
            grids=grids,
            signs=torch.tensor([at for at, _ in signs], dtype=torch.long),
            truths=torch.tensor([float(truth) for _, truth in signs]),
        )

    def word_ids(self, words: Iterable[str]) -> list[int]:
        """The tokens of words as they stand inside a sentence, each once."""
        encodings = self._tokenizer.encode_batch(
            [" " + word for word in sorted(words)], add_special_tokens=False
        )
        return sorted({token for encoding in encodings for token in encoding.ids})

    def _row(self, example: Example) -> _Row:
        pictures: list[npt.NDArray[np.uint8]] = []
        sides = [_item(side, pictures) for side in (example.query, *example.documents)]
        prompts = self._family.render((example.instruction,), sides[0], sides[1:], truncate=False)
        pad = self._family.image_token_id
        prefix, columns, start = None, [], 0
        row = _Row([], [], np.empty((3, 0), np.int64), [], [], pictures)
        for number, (prompt, document) in enumerate(
            zip(prompts, example.documents, strict=True), start=1
        ):
            assert isinstance(prompt, Prompt), "generated examples are short"
            if prefix is None:
                prefix = prompt.prefix
                places, start = positions(prefix, pad)
                columns.append(places)
                row.ids += prefix.ids
                row.owner += [0] * len(prefix.ids)
            row.signs += [
                (len(row.ids) + at, truth)
                for at, truth in self._signs(prompt.suffix.ids, document, example)
            ]
            row.ids += prompt.suffix.ids
            row.owner += [number] * len(prompt.suffix.ids)
            row.last.append(len(row.ids) - 1)
            columns.append(positions(prompt.suffix, pad, start)[0])
        row.positions = np.concatenate(columns, axis=1)
        return row

    def _signs(
        self, ids: Sequence[int], document: Side, example: Example
    ) -> Iterator[tuple[int, bool]]:
        """Where each content word and each image of a document ends, and whether it speaks for the
        document.

        A word does if the query says it, an image if it shows what the relevant document's image
        shows.
        """
        pieces = [self._pieces[token] for token in ids[: ids.index(self._end)]]
        ends = {end: at for at, end in enumerate(accumulate(map(len, pieces)))}
        for word in _WORD.finditer("".join(pieces), len("<Document>:")):
            said = word.group().lower()
            if (said not in STOPWORDS or said in NUMBER_WORDS) and word.end() in ends:
                yield ends[word.end()], said in example.evidence
        wanted = _shown(example.documents[0])
        for at, shown in zip(
            (at for at, token in enumerate(ids) if token == self._image_end),
            _shown(document),
            strict=True,
        ):
            yield at, shown in wanted


def _shown(side: Side) -> list[frozenset[str]]:
    """The words that are true of each picture of a side."""
    return [part.info["words"] for part in side if not isinstance(part, str)]


def pixel_values(pictures: Sequence[npt.NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Patches of several pictures one after the other, `[patches, 1176]`, and each one's grid,
    `[pictures, 3]`."""
    grids = [grid(_image(b"", picture)) for picture in pictures]
    return torch.from_numpy(
        np.concatenate([patches(picture) for picture in pictures])
    ), torch.tensor(grids)


def _item(side: Side, pictures: list[npt.NDArray[np.uint8]]) -> Item:
    parts: list[str | Image] = []
    for part in side:
        if isinstance(part, str):
            parts.append(part)
        else:
            pictures.append(fitted(part))
            parts.append(_image(str(len(pictures)).encode(), pictures[-1]))
    return tuple(parts)


def _image(key: bytes, picture: npt.NDArray[np.uint8]) -> Image:
    return Image(key, picture.shape[1], picture.shape[0])
