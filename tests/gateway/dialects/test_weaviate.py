"""Weaviate's module `reranker-transformers` over HTTP: its requests, and its probes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

DOCUMENTS = ["a blue square", "a red circle", "a list of numbers"]


def asked(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"query": "a red circle", "documents": DOCUMENTS, "property": ""}
    return client.post("/rerank", json=body | fields)


def test_each_document_has_its_score_in_the_order_of_documents(client: httpx.Client) -> None:
    native = client.post("/v2/rerank", json={"query": "a red circle", "documents": DOCUMENTS})
    scores = {each["index"]: each["relevance_score"] for each in native.json()["results"]}
    assert asked(client).json()["scores"] == [
        {"document": document, "score": scores[index]} for index, document in enumerate(DOCUMENTS)
    ]


def test_nothing_takes_a_score_from_the_list(client: httpx.Client) -> None:
    body = asked(client, top_n=1, min_score=1, documents=[*DOCUMENTS, ""], on_error="skip").json()
    assert [each["document"] for each in body["scores"]] == [*DOCUMENTS, ""]
    assert ["score" in each for each in body["scores"]] == [True, True, True, False]
    assert [each["index"] for each in body["errors"]] == [3]
    assert body["meta"]["warnings"] == [
        "top_n had no effect: every document has a score.",
        "min_score had no effect: every document has a score.",
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"documents": ["a", {"image": "aaaa"}]}, "documents[1] must be a string."),
        ({"documents": ["a", ""]}, "documents[1] needs a text or an image."),
        ({"query": {"image": "aaaa"}}, "query must be a string."),
        ({"query": None}, "query is required."),
    ],
)
def test_an_error_is_a_string_that_weaviate_shows(
    client: httpx.Client, fields: dict[str, Any], says: str
) -> None:
    refused = asked(client, **fields)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["error"] == refused.json()["message"] == says


def test_it_may_start_when_the_service_is_ready(client: httpx.Client) -> None:
    assert client.get("/.well-known/ready").is_success
    assert client.get("/.well-known/live").is_success
    assert client.get("/meta").json() == client.get("/info").json()
