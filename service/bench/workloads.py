"""The requests that are timed: four shapes of work, each pair with its text and images at hand.

Knows texts, pictures and a tokenizer's lengths, nothing of servers or networks. Invariant: a
workload depends on its letter, its size, its seed and the tokenizer alone.
"""

from __future__ import annotations

import base64
import io
import pydoc_data.topics
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from model_store.families.tokens import LiteralTokenizer

Part = str | Image.Image
"""A query or a document: a text, or a picture."""

QUERY_TOKENS = 300
DOCUMENT_TOKENS = 130
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class Request:
    """One query with its documents, each a text or a picture. The first `repeated` of them were
    asked about before."""

    query: Part
    documents: list[Part]
    cache: str = "bypass"
    repeated: int = 0

    def body(self) -> dict[str, Any]:
        """The request as JSON for `POST /rerank`, past the score cache unless `cache` says
        otherwise."""
        return {
            "query": _item(self.query),
            "documents": [_item(document) for document in self.documents],
            "instruction": INSTRUCTION,
            "cache": self.cache,
        }


def make_request(letter: str, documents: int, seed: int, tokenizer: LiteralTokenizer) -> Request:
    """A request of workload T, Q, L or C."""
    rng = Random(f"{letter}/{seed}")
    query, document = WORKLOADS[letter]
    text = _Text(rng, tokenizer)
    return Request(query(text, rng), [document(text, rng) for _ in range(documents)])


class _Text:
    """English of a wanted number of tokens."""

    def __init__(self, rng: Random, tokenizer: LiteralTokenizer) -> None:
        self._rng, self._tokenizer = rng, tokenizer
        self._words = re.findall(
            r"[A-Za-z]+[.,]?",
            " ".join(text for _, text in sorted(pydoc_data.topics.topics.items())),
        )

    def of(self, tokens: int) -> str:
        start = self._rng.randrange(len(self._words) - 2 * tokens)
        return self._tokenizer.cut(" ".join(self._words[start : start + 2 * tokens]), tokens)


def _picture(rng: Random, side: int) -> Image.Image:
    """A picture with enough in it that no encoder finds it trivial."""
    image = Image.new(
        "RGB", (side, side), (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    )
    pen = ImageDraw.Draw(image)
    for _ in range(24):
        x, y, reach = rng.randrange(side), rng.randrange(side), rng.randrange(4, side // 3)
        pen.ellipse(
            (x - reach, y - reach, x + reach, y + reach),
            fill=(rng.randrange(256), rng.randrange(256), rng.randrange(256)),
        )
    return image


def _long_tailed(rng: Random) -> int:
    return max(16, min(512, round(rng.lognormvariate(4.4, 0.9))))


_Maker = Callable[[_Text, Random], Part]
WORKLOADS: dict[str, tuple[_Maker, _Maker]] = {
    "T": (lambda text, rng: text.of(QUERY_TOKENS - 70), lambda text, rng: text.of(DOCUMENT_TOKENS)),
    "Q": (lambda text, rng: _picture(rng, 448), lambda text, rng: text.of(DOCUMENT_TOKENS)),
    "L": (
        lambda text, rng: text.of(QUERY_TOKENS - 70),
        lambda text, rng: text.of(_long_tailed(rng)),
    ),
    "C": (lambda text, rng: text.of(QUERY_TOKENS - 70), lambda text, rng: _picture(rng, 280)),
}
DESCRIPTIONS = {
    "T": "300-token query side x texts of 130 tokens",
    "Q": "448 x 448 image query x texts of 130 tokens",
    "L": "300-token query side x texts of 16 to 512 tokens, long-tailed",
    "C": "300-token query side x 280 x 280 images",
}


def _item(part: Part) -> Any:
    if isinstance(part, str):
        return part
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=90)
    return {"image": base64.b64encode(buffer.getvalue()).decode()}
