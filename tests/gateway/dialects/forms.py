"""A query and documents in the form of each dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.gateway.dialects.catalogue import DIALECTS

Ranking = list[tuple[int, float]]
NAMES = {dialect.name for dialects in DIALECTS.values() for dialect in dialects}
"""The names of all dialects."""


@dataclass(frozen=True)
class Form:
    """A dialect's form of a query and documents, and the reading of its answer.

    A document is a text or, where the dialect has a place for it, `{"image": data URL}`.
    """

    path: str
    body: Callable[[str, list[Any]], dict[str, Any]]
    ranking: Callable[[Any], Ranking]
    pictures: bool = True
    logits: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def plain(query: str, documents: list[Any]) -> dict[str, Any]:
    return {"query": query, "documents": documents}


def with_fields(**fields: Any) -> Callable[[str, list[Any]], dict[str, Any]]:
    return lambda query, documents: plain(query, documents) | fields


def pairs_in(name: str | None, score: str = "relevance_score") -> Callable[[Any], Ranking]:
    """Read the index and the score of each entry of a list, which is an answer or a field of it."""

    def ranking(answer: Any) -> Ranking:
        entries = answer if name is None else answer[name]
        return [(each["index"], each[score]) for each in entries]

    return ranking


def in_place(answer: Any) -> Ranking:
    """A ranking of scores in the order of the documents."""
    entries = answer["scores"] if "scores" in answer else answer["data"]
    scored = [(index, each["score"]) for index, each in enumerate(entries)]
    return sorted(scored, key=lambda each: (-each[1], each[0]))


FORMS = {
    "native": Form("/rerank", plain, pairs_in("results")),
    "tei": Form(
        "/rerank",
        lambda query, documents: {"query": query, "texts": documents, "raw_scores": True},
        pairs_in(None, "score"),
        pictures=False,
        logits=True,
    ),
    "hugging-face": Form("/", plain, pairs_in(None, "score"), pictures=False),
    "voyage": Form("/v1/rerank", with_fields(top_k=None), pairs_in("data")),
    "weaviate": Form("/rerank", with_fields(property=""), in_place, pictures=False),
    "openrouter": Form("/api/v1/rerank", plain, pairs_in("results")),
    "elasticsearch-client": Form(
        "/v2/rerank",
        plain,
        pairs_in("results"),
        headers={"Request-Source": "unspecified:elasticsearch"},
    ),
    "infinity": Form("/infinity/rerank", plain, pairs_in("results")),
    "sglang": Form("/sglang/v1/rerank", plain, pairs_in(None, "score")),
    "nim": Form(
        "/v1/ranking",
        lambda query, documents: {
            "query": {"text": query},
            "passages": [each if isinstance(each, dict) else {"text": each} for each in documents],
        },
        pairs_in("rankings", "logit"),
        logits=True,
    ),
    "mixedbread": Form(
        "/v1/reranking",
        lambda query, documents: {"query": query, "input": documents},
        pairs_in("data", "score"),
    ),
    "dashscope": Form(
        "/api/v1/services/rerank/text-rerank/text-rerank",
        lambda query, documents: {"input": plain(query, documents)},
        lambda answer: pairs_in("results")(answer["output"]),
    ),
    "elasticsearch": Form(
        "/_inference/rerank/default/not-specified",
        lambda query, documents: {
            "query": query,
            "input": [
                {"type": "image", "value": each["image"]} if isinstance(each, dict) else each
                for each in documents
            ],
        },
        pairs_in("rerank"),
    ),
    "vllm-score": Form(
        "/score",
        lambda query, documents: {"queries": query, "documents": documents},
        in_place,
    ),
    "vllm-score-items": Form(
        "/v1/score",
        lambda query, documents: {"queries": query, "items": documents},
        in_place,
    ),
    "vllm-score-data": Form(
        "/score",
        lambda query, documents: {"data_1": [query] * len(documents), "data_2": documents},
        in_place,
    ),
    "vllm-score-text": Form(
        "/score",
        lambda query, documents: {"text_1": query, "text_2": documents},
        in_place,
    ),
}
