"""Examples as packed batches: one row a query, its pairs one after the other behind their prefix.

The trainer's `Batcher` cannot make these batches: it has a row for each pair, which sums in another
order and names no signs, so gmr-tiny's weights would not be reproduced. Depends on prompts and
positions, not on a network. Invariant: the mask of a row lets a pair see the shared prefix and
itself, so each pair is read exactly as in a row of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as Pil
from tokenizers import Tokenizer
from torch import Tensor

from model_store.families.family import Family
from model_store.families.prompt import Image, Item, NotRendered, Prompt
from model_store.networks.qwen2_5_vl_images import grid, patches, positions
from model_store.synthetic import cells, scenes
from model_store.synthetic.cells import NUMBER_WORDS
from model_store.synthetic.examples import Example, Side
from model_store.synthetic.lexical import STOPWORDS
from model_store.synthetic.pictures import fitted

_WORD = re.compile(r"[A-Za-z]+|[0-9]+")
_ONE = frozenset(scenes.NUMBERS[1])
"""Words true of a picture of a single thing, which a text need not say."""
Picture = npt.NDArray[np.uint8]
"""A picture's pixels, `[height, width, 3]`."""


@dataclass(slots=True)
class PackedBatch:
    """`rows` queries with `documents` each, padded to `tokens`.

    Flat indexes count positions over all rows. A sign is the last token of a word or an image of
    the side that a prompt ends with; it is true where that word or image speaks for the pair.
    """

    cells: list[str]
    ids: Tensor  # [rows, tokens]
    positions: Tensor  # [3, rows, tokens]
    owner: Tensor  # [rows, tokens]: 0 the shared prefix, n the n-th pair, -1 padding
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
    pictures: list[Picture]


class PackedBatcher:
    """Makes packed batches of examples for one family; `fit` gives a picture the size to read.

    Examples that were not generated have no signs.
    """

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        fit: Callable[[Pil.Image], Picture] = fitted,
        *,
        signs: bool = True,
    ) -> None:
        self._family = family
        self._fit = fit
        self._has_signs = signs
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._end = tokenizer.token_to_id("<|im_end|>")
        self._image_start = tokenizer.token_to_id("<|vision_start|>")
        self._image_end = tokenizer.token_to_id("<|vision_end|>")
        self._document_first = family.cacheable_side == "document"
        self.readout, self.label_ids = family.readout, family.label_ids
        self.default_instruction = family.default_instruction
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
        pictures: list[Picture] = []
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
        pictures: list[Picture] = []
        items = [self._item(side, pictures) for side in (example.query, *example.documents)]
        prompts = self._family.render((example.instruction,), items[0], items[1:], truncate=False)
        if self._document_first:
            pictures[:] = self._by_pair(pictures, example)

        row = _Row([], [], np.empty((3, 0), np.int64), [], [], pictures)
        columns: list[npt.NDArray[np.int64]] = []
        shared = 0
        for number, prompt in enumerate(prompts, start=1):
            assert isinstance(prompt, Prompt), "generated examples are short"
            if number == 1:
                shared = self._shared_tokens(prompts)

            ids = [*prompt.prefix.ids, *prompt.suffix.ids]
            prefix, start = positions(prompt.prefix, self._family.image_token_id)
            suffix, _ = positions(prompt.suffix, self._family.image_token_id, start)
            whole = np.concatenate([prefix, suffix], axis=1)
            if number == 1:
                columns.append(whole[:, :shared])
                row.ids += ids[:shared]
                row.owner += [0] * shared

            begin = len(row.ids) + len(prompt.prefix.ids) - shared
            if self._has_signs:
                for position, truth in self._signs(prompt.suffix.ids, number - 1, example):
                    row.signs.append((begin + position, truth))
            columns.append(whole[:, shared:])
            row.ids += ids[shared:]
            row.owner += [number] * (len(ids) - shared)
            row.last.append(len(row.ids) - 1)

        row.positions = np.concatenate(columns, axis=1)
        return row

    def _shared_tokens(self, prompts: Sequence[Prompt | NotRendered]) -> int:
        """Tokens with which all prompts of a row begin, none of them of a document's image."""
        prefixes = [prompt.prefix.ids for prompt in prompts if isinstance(prompt, Prompt)]
        if not self._document_first:
            return len(prefixes[0])

        shared = 0
        for tokens in zip(*prefixes, strict=False):
            if len(set(tokens)) > 1 or tokens[0] == self._image_start:
                break
            shared += 1
        return shared

    def _by_pair(self, pictures: Sequence[Picture], example: Example) -> list[Picture]:
        """Pictures in the order of a row whose pairs begin with the document: the query's again
        after those of each document."""
        count = len(_shown(example.query))
        of_query, of_documents = pictures[:count], list(pictures[count:])
        ordered: list[Picture] = []
        for document in example.documents:
            shown = len(_shown(document))
            ordered += [*of_documents[:shown], *of_query]
            del of_documents[:shown]
        return ordered

    def _item(self, side: Side, pictures: list[Picture]) -> Item:
        """A side as the family reads it; its pictures are appended to `pictures`."""
        parts: list[str | Image] = []
        for part in side:
            if isinstance(part, str):
                parts.append(part)
            else:
                picture = self._fit(part)
                pictures.append(picture)
                parts.append(_image(str(len(pictures)).encode(), picture))
        return tuple(parts)

    def _signs(
        self, ids: Sequence[int], number: int, example: Example
    ) -> Iterator[tuple[int, bool]]:
        """(token, truth) of each sign in the second half of a pair's prompt; `number` is the
        document's."""
        document = example.documents[number]
        if self._document_first:
            yield from self._signs_of_query(ids, document, example)
            return

        yield from self._signs_of_words(ids, "<Document>:", example.evidence)
        relevant = _shown(example.documents[0])
        for position, words in zip(self._image_ends(ids), _shown(document), strict=True):
            yield position, words in relevant

    def _signs_of_query(
        self, ids: Sequence[int], document: Side, example: Example
    ) -> Iterator[tuple[int, bool]]:
        """A word's sign is true if the document has the word, an image's if the document shows or
        says the same.

        Where a picture takes part there is a sign at the end of the query: a change of a picture is
        known there alone. Of texts there is none, as there is none of texts that come second.
        """
        evidence = cells.evidence(document)
        yield from self._signs_of_words(ids, "<Query>:", evidence)

        shown = _shown(document)
        for position, words in zip(self._image_ends(ids), _shown(example.query), strict=True):
            yield position, words in shown if shown else words - _ONE <= evidence
        if shown or _shown(example.query):
            yield ids.index(self._end), document is example.documents[0]

    def _signs_of_words(
        self, ids: Sequence[int], before: str, evidence: frozenset[str]
    ) -> Iterator[tuple[int, bool]]:
        """(last token, truth) of each content word behind the text `before`."""
        pieces = [self._pieces[token] for token in ids[: ids.index(self._end)]]
        token_at = {end: token for token, end in enumerate(accumulate(map(len, pieces)))}
        text = "".join(pieces)
        for match in _WORD.finditer(text, text.index(before) + len(before)):
            word = match.group().lower()
            content = word not in STOPWORDS or word in NUMBER_WORDS
            if content and match.end() in token_at:
                yield token_at[match.end()], word in evidence

    def _image_ends(self, ids: Sequence[int]) -> list[int]:
        return [position for position, token in enumerate(ids) if token == self._image_end]


def _shown(side: Side) -> list[frozenset[str]]:
    """The words that are true of each picture of a side."""
    return [part.info["words"] for part in side if not isinstance(part, str)]


def pixel_values(pictures: Sequence[Picture]) -> tuple[Tensor, Tensor]:
    """Patches of pictures, one after the other, `[patches, 1176]`, and grids, `[pictures, 3]`."""
    pixels = np.concatenate([patches(picture) for picture in pictures])
    grids = [grid(_image(b"", picture)) for picture in pictures]
    return torch.from_numpy(pixels), torch.tensor(grids)


def _image(key: bytes, picture: Picture) -> Image:
    return Image(key, picture.shape[1], picture.shape[0])
