"""Infinity's dialect over HTTP, at its own path."""

from __future__ import annotations

from typing import Any

import httpx

DOCUMENTS = ["a blue square", "a red circle", "a list of numbers"]


def asked(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    body = {"model": "default/not-specified", "query": "a red circle", "documents": DOCUMENTS}
    return client.post(path, json=body | fields)


def test_documents_are_strings(client: httpx.Client) -> None:
    body = asked(client, "/infinity/rerank", return_documents=True, raw_scores=False).json()
    native = asked(client, "/rerank").json()

    assert body["object"] == "rerank"
    assert body["usage"] == native["usage"]
    for each, expected in zip(body["results"], native["results"], strict=True):
        assert each["document"] == DOCUMENTS[each["index"]]
        assert each["index"] == expected["index"]
        assert each["relevance_score"] == expected["relevance_score"]


def test_raw_scores_are_logits(client: httpx.Client) -> None:
    body = asked(client, "/infinity/rerank", raw_scores=True, top_n=2).json()
    assert len(body["results"]) == 2
    for each in body["results"]:
        assert each["relevance_score"] == each["logit"]
        assert "document" not in each
    refused = asked(client, "/infinity/rerank", raw_scores="maybe")
    assert refused.json()["detail"] == "raw_scores must be true or false."
