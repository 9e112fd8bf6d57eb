"""Elasticsearch as a client, over HTTP: a header marks it, and results have no keys that it
refuses."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

DOCUMENTS = ["a blue square", "a red circle", "a list of numbers"]
HEADERS = {"Request-Source": "unspecified:elasticsearch"}
PATHS = ["/rerank", "/v1/rerank", "/v2/rerank"]


def asked(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    body = {"model": "gmr-tiny", "query": "a red circle", "documents": DOCUMENTS} | fields
    return client.post(path, json=body, headers=HEADERS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "marks", [{}, {"top_n": 2}, {"top_k": 2}, {"top_k": 2, "truncation": True}]
)
def test_results_have_only_the_keys_that_its_parsers_know(
    client: httpx.Client, path: str, marks: dict[str, Any]
) -> None:
    answer = asked(client, path, return_documents=True, **marks)
    body = answer.json()
    assert len(body["results"]) == (2 if marks else 3)

    for result, entry in zip(body["results"], body["data"], strict=True):
        assert result.keys() == {"index", "relevance_score", "document"}
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
        assert entry == result | {"document": DOCUMENTS[result["index"]]}


@pytest.mark.parametrize("path", PATHS)
def test_results_are_ahead_of_every_object(client: httpx.Client, path: str) -> None:
    pairs: list[tuple[str, Any]] = json.loads(asked(client, path).text, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    before = pairs[: names.index("results")]
    assert all(isinstance(value, str) for _, value in before)
    assert "document" not in asked(client, path).json()["results"][0]


def test_its_errors_have_the_message_where_its_parsers_look(client: httpx.Client) -> None:
    refused = asked(client, "/v2/rerank", documents=["a", ""])
    assert refused.json()["message"] == "documents[1] needs a text or an image."
    assert refused.json()["detail"] == refused.json()["message"]


def test_another_source_gets_every_key(client: httpx.Client) -> None:
    body = {"query": "q", "documents": DOCUMENTS}
    for headers in ({}, {"Request-Source": "python:sdk"}):
        answer = client.post("/v2/rerank", json=body, headers=headers)
        assert {"logit", "meta"} <= answer.json()["results"][0].keys()
