"""The requests that are timed: four kinds of queries and documents, texts or images.

Depends on texts, images and a tokenizer's lengths, not on servers or networks. Invariant: a
workload depends on its letter, its size, its seed and the tokenizer alone.
"""

from __future__ import annotations

import base64
import io
import pydoc_data.topics
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from model_store.families.tokens import LiteralTokenizer

Part = str | Image.Image
"""A query or a document: a text, or an image."""

QUERY_TOKENS = 300
TEMPLATE_TOKENS = 70
"""Tokens of `QUERY_TOKENS` that the template and the instruction have, about."""
DOCUMENT_TOKENS = 130
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class Request:
    """One query with its documents, each a text or an image."""

    query: Part
    documents: list[Part]
    cache: str = "bypass"
    repeated: int = 0
    """Documents, from the first on, that an earlier request had."""

    def body(self) -> dict[str, Any]:
        """The body for `POST /rerank`. It bypasses the score cache, unless `cache` is set."""
        return {
            "query": _item(self.query),
            "documents": [_item(document) for document in self.documents],
            "instruction": INSTRUCTION,
            "cache": self.cache,
        }


def make_request(letter: str, documents: int, seed: int, tokenizer: LiteralTokenizer) -> Request:
    """A request of workload T, Q, L or C."""
    generator = Generator(Random(f"{letter}/{seed}"), tokenizer)
    make_query, make_document = WORKLOADS[letter]
    query = make_query(generator)
    return Request(query, [make_document(generator) for _ in range(documents)])


class Generator:
    """Random texts and images."""

    def __init__(self, rng: Random, tokenizer: LiteralTokenizer) -> None:
        self._rng = rng
        self._tokenizer = tokenizer
        self._words = _words()

    def text(self, tokens: int) -> str:
        """English of so many tokens."""
        start = self._rng.randrange(len(self._words) - 2 * tokens)
        words = self._words[start : start + 2 * tokens]
        return self._tokenizer.cut(" ".join(words), tokens)

    def long_tailed_text(self) -> str:
        """English of 16 to 512 tokens, most often about 80."""
        tokens = round(self._rng.lognormvariate(4.4, 0.9))
        return self.text(max(16, min(512, tokens)))

    def image(self, side: int) -> Image.Image:
        """A square of 24 discs, which no image format compresses to almost nothing."""
        image = Image.new("RGB", (side, side), self._colour())
        pen = ImageDraw.Draw(image)
        for _ in range(24):
            x, y = self._rng.randrange(side), self._rng.randrange(side)
            radius = self._rng.randrange(4, side // 3)
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, fill=self._colour())
        return image

    def _colour(self) -> tuple[int, int, int]:
        return self._rng.randrange(256), self._rng.randrange(256), self._rng.randrange(256)


@cache
def _words() -> list[str]:
    """The words of the standard library's own English."""
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    return re.findall(r"[A-Za-z]+[.,]?", " ".join(texts))


def _query_text(generator: Generator) -> Part:
    return generator.text(QUERY_TOKENS - TEMPLATE_TOKENS)


def _document_text(generator: Generator) -> Part:
    return generator.text(DOCUMENT_TOKENS)


def _long_tailed_text(generator: Generator) -> Part:
    return generator.long_tailed_text()


def _query_image(generator: Generator) -> Part:
    return generator.image(448)


def _document_image(generator: Generator) -> Part:
    return generator.image(280)


_Maker = Callable[[Generator], Part]
WORKLOADS: dict[str, tuple[_Maker, _Maker]] = {
    "T": (_query_text, _document_text),
    "Q": (_query_image, _document_text),
    "L": (_query_text, _long_tailed_text),
    "C": (_query_text, _document_image),
}
"""Makers of the query and of each document, by letter."""
DESCRIPTIONS = {
    "T": "300-token query side x texts of 130 tokens",
    "Q": "448 x 448 image query x texts of 130 tokens",
    "L": "300-token query side x texts of 16 to 512 tokens, long-tailed",
    "C": "300-token query side x 280 x 280 images",
}


def _item(part: Part) -> Any:
    """A part as the item of a request."""
    if isinstance(part, str):
        return part
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=90)
    return {"image": base64.b64encode(buffer.getvalue()).decode()}
