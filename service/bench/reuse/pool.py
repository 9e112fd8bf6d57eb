"""The documents that come back, and the requests that ask for them.

Depends on workloads and seeds, on no server. Invariant: no two requests have the same query, and a
document or query depends on its number alone, so that all contenders get the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from model_store.families.tokens import LiteralTokenizer
from service.bench.workloads import DOCUMENT_TOKENS, Generator, Part, Request

DESCRIPTIONS = {
    "D": "new 20-token queries x texts of 130 tokens that come back",
    "DI": "new 20-token queries x 448 x 448 images that come back",
}
QUERY_TOKENS = 20
IMAGE_SIDE = 448
IMAGE_PIXELS = IMAGE_SIDE**2
_FILLING = 10_000
"""The number of the first query that is not timed."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The documents of a workload: texts in D, images in DI. `size` of them come back, `documents`
    in one request."""

    letter: str
    size: int
    documents: int
    tokenizer: LiteralTokenizer

    @property
    def first_requests(self) -> int:
        """Requests after which every document was asked for."""
        return -(-self.size // self.documents)

    def first(self, number: int) -> Request:
        """The request that asks for the next documents of the pool for the first time."""
        start = number * self.documents
        end = min(start + self.documents, self.size)
        return self._request(number, range(start, end))

    def again(self, number: int) -> Request:
        """A new query over documents of the pool, drawn without replacement."""
        drawn = Random(f"{self.letter}/again/{number}").sample(range(self.size), self.documents)
        return self._request(self.first_requests + number, drawn)

    def beside(self, number: int) -> Request:
        """A new query over further documents, which are in no other request: the same ones for
        every number."""
        return self._request(_FILLING + number, range(self.size, self.size + self.documents))

    def _request(self, query: int, documents: range | list[int]) -> Request:
        text = self._generator(f"query/{query}").text(QUERY_TOKENS)
        return Request(text, [self._document(number) for number in documents])

    def _document(self, number: int) -> Part:
        generator = self._generator(f"document/{number}")
        if self.letter == "DI":
            return generator.image(IMAGE_SIDE)
        return generator.text(DOCUMENT_TOKENS)

    def _generator(self, seed: str) -> Generator:
        return Generator(Random(f"{self.letter}/{seed}"), self.tokenizer)
