"""The requests of `gmr bench --routing`: single ones by length of query, and streams of pages.

Depends on workloads and a tokenizer, on no server. Invariant: no request is made twice, and no
document but within a list of recurring ones, so that none profits from a cache that another one
filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from model_store.families.tokens import LiteralTokenizer
from service.bench.workloads import make_request

QUERIES = {"short": 0, "middle": 2, "long": 8}
"""Queries by their length: a number of texts of 130 tokens; 0: the first words of a text."""
_SHORT_QUERY_WORDS = 12

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """The lengths of queries to compare, and the size of a stream: its queries, the pages of each,
    and the documents of a page. Of recurring documents there are as many as one query has, and so
    many queries over some of them."""

    queries: Mapping[str, int] = field(default_factory=lambda: QUERIES)
    stream_queries: int = 6
    pages: int = 4
    page_documents: int = 10
    recurring_queries: int = 24


class RequestMaker:
    """Makes requests that were never made before."""

    def __init__(self, tokenizer: LiteralTokenizer, extent: Extent) -> None:
        self._tokenizer = tokenizer
        self._extent = extent
        self._seeds = count()

    def single(self, query: str, documents: int) -> Body:
        """A request with a query of a named length and so many documents."""
        query_texts = self._extent.queries[query]
        body = self._body("T", query_texts + documents)

        text = " ".join(body["documents"][:query_texts])
        if not text:
            text = " ".join(body["query"].split()[:_SHORT_QUERY_WORDS])
        return body | {"query": text, "documents": body["documents"][query_texts:]}

    def stream(self, letter: str) -> list[Body]:
        """The pages of several queries, shuffled."""
        size = self._extent.page_documents
        pages = []
        for _ in range(self._extent.stream_queries):
            body = self._body(letter, size * self._extent.pages)
            for start in range(0, len(body["documents"]), size):
                pages.append(body | {"documents": body["documents"][start : start + size]})

        Random(next(self._seeds)).shuffle(pages)
        return pages

    def recurring(self) -> list[Body]:
        """New queries, each over a page of documents that are drawn from the same ones."""
        size = self._extent.page_documents
        known = self._body("T", size * self._extent.pages)["documents"]
        dice = Random(next(self._seeds))
        return [
            self.single("short", 1) | {"documents": dice.sample(known, size)}
            for _ in range(self._extent.recurring_queries)
        ]

    def tokens(self, body: Body) -> tuple[int, int]:
        """(prefix, suffix) tokens of a request of texts, without the template."""
        encoded = self._tokenizer.encode([body["instruction"], body["query"], *body["documents"]])
        lengths = [len(ids) for ids in encoded]
        return sum(lengths[:2]), sum(lengths[2:])

    def _body(self, letter: str, documents: int) -> Body:
        return make_request(letter, documents, next(self._seeds), self._tokenizer).body()
