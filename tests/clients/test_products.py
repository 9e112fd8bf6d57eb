"""Products of docs/clients.md that are not installed here: each one's request, as its sources build
it, and its reading of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.clients.page import page_names

pytestmark = pytest.mark.slow

NAMES = page_names()
QUERY, DOCUMENTS = NAMES["query"], NAMES["documents"]
TEXTS = {"model": "gmr-tiny", "query": QUERY, "documents": DOCUMENTS}
PARTS = [
    {"content": [{"type": "image_url", "image_url": {"url": picture}}]}
    for picture in NAMES["pictures"]
]
ELASTICSEARCH_KEYS = {"index", "relevance_score", "document"}

Scores = list[float]


def by_index(answer: Any, name: str = "results", score: str = "relevance_score") -> Scores:
    """The scores of documents in their order, as most products read them."""
    scores = [0.0] * len(answer[name])
    for result in answer[name]:
        scores[result["index"]] = result[score]
    return scores


def strictly(answer: Any) -> Scores:
    """As Elasticsearch's parsers read results: a key that they do not know is an error."""
    assert all(result.keys() <= ELASTICSEARCH_KEYS for result in answer["results"])
    return by_index(answer)


@dataclass(frozen=True, slots=True)
class Product:
    """A product's request, and its reading of the answer."""

    path: str
    body: Mapping[str, Any]
    read: Callable[[Any], Scores] = by_index
    headers: Mapping[str, str] = field(default_factory=dict)


PRODUCTS = {
    "Dify": Product("/v1/rerank", TEXTS | {"top_n": 0}),
    "Dify with pictures": Product(
        "/v1/rerank",
        {"model": "gmr-tiny", "query": "two red circles", "documents": PARTS, "top_n": 3},
    ),
    "RAGFlow: OpenAI-API-Compatible": Product("/v1/rerank", TEXTS | {"top_n": 3}),
    "RAGFlow: Xinference": Product(
        "/v1/rerank", TEXTS | {"return_documents": "true", "return_len": "true"}
    ),
    "RAGFlow: NVIDIA": Product(
        "/v1/ranking",
        {
            "model": "gmr-tiny",
            "query": {"text": QUERY},
            "passages": [{"text": text} for text in DOCUMENTS],
            "truncate": "END",
            "top_n": 3,
        },
        lambda answer: by_index(answer, "rankings", "logit"),
    ),
    "Open WebUI": Product("/v1/rerank", TEXTS | {"top_n": 3}),
    "n8n": Product("/v1/rerank", TEXTS | {"top_n": 10}),
    "LibreChat": Product("/v1/rerank", TEXTS | {"top_n": 5, "return_documents": True}),
    "Milvus: vllm": Product("/rerank", TEXTS),
    "Milvus: tei": Product(
        "/rerank",
        {"query": QUERY, "texts": DOCUMENTS, "truncate": True, "truncation_direction": "Right"},
        lambda answer: by_index({"results": answer}, score="score"),
    ),
    "OpenSearch": Product("/v1/rerank", TEXTS | {"top_n": 3}),
    "Weaviate: reranker-cohere": Product(
        "/v2/rerank",
        TEXTS | {"return_documents": False},
        headers={"request-source": "unspecified:weaviate"},
    ),
    "Weaviate: reranker-nvidia": Product(
        "/v1/retrieval/nvidia/reranking",
        {
            "model": "gmr-tiny",
            "query": {"text": QUERY},
            "passages": [{"text": text} for text in DOCUMENTS],
        },
        lambda answer: by_index(answer, "rankings", "logit"),
    ),
    "Weaviate: reranker-transformers": Product(
        "/rerank",
        {"query": QUERY, "documents": DOCUMENTS, "property": ""},
        lambda answer: [scored["score"] for scored in answer["scores"]],
    ),
    "Elasticsearch: custom": Product("/v2/rerank", TEXTS),
    "Elasticsearch: cohere": Product(
        "/v2/rerank",
        TEXTS | {"return_documents": True, "top_n": 3},
        strictly,
        {"request-source": "unspecified:elasticsearch"},
    ),
    "Elasticsearch: hugging_face": Product(
        "/",
        {"query": QUERY, "documents": DOCUMENTS, "return_documents": True},
        lambda answer: by_index({"results": answer}, score="score"),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_reads_the_ranking(name: str, client: httpx.Client) -> None:
    product = PRODUCTS[name]
    answer = client.post(product.path, json=dict(product.body), headers=dict(product.headers))
    assert answer.status_code == 200, answer.text

    scores = product.read(answer.json())
    assert len(scores) == 3
    assert sorted(range(3), key=scores.__getitem__, reverse=True) == [1, 2, 0]
