"""OpenRouter's dialect over HTTP, at `/api/v1/rerank`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.gateway.dialects.pictures import RED_CIRCLE

DOCUMENTS = ["a blue square", {"text": "a red circle"}, {"image": RED_CIRCLE}]
OF_OPENROUTER = {"provider": {"order": ["cohere"]}, "session_id": "s", "trace": {}, "user": "u"}


def asked(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "gmr-tiny", "query": "a red circle", "documents": DOCUMENTS}
    return client.post("/api/v1/rerank", json=body | fields)


def test_every_result_has_its_text(client: httpx.Client) -> None:
    body = asked(client, **OF_OPENROUTER).json()
    native = client.post("/v2/rerank", json={"query": "a red circle", "documents": DOCUMENTS})

    assert [each["relevance_score"] for each in body["results"]] == [
        each["relevance_score"] for each in native.json()["results"]
    ]
    texts = {each["index"]: each["document"] for each in body["results"]}
    assert texts == {0: {"text": "a blue square"}, 1: {"text": "a red circle"}, 2: {"text": ""}}
    assert body["usage"]["search_units"] == 1
    assert body["usage"]["total_tokens"] == native.json()["usage"]["total_tokens"]
    assert body["provider"] == "gmr-rerank"
    assert "warnings" not in body["meta"]


@pytest.mark.parametrize(
    ("fields", "status"), [({"documents": []}, 400), ({"model": "cohere/rerank-v3.5"}, 404)]
)
def test_an_error_has_openrouters_object_beside_the_flat_body(
    client: httpx.Client, fields: dict[str, Any], status: int
) -> None:
    refused = asked(client, **fields)
    body = refused.json()
    assert refused.status_code == status
    assert body["error"] == {"code": status, "message": body["message"]}
    assert body["detail"] == body["message"]


def test_own_fields_are_reachable(client: httpx.Client) -> None:
    body = asked(client, documents=[*DOCUMENTS, ""], on_error="skip", top_n=1).json()
    assert len(body["results"]) == 1
    assert {"logit", "meta"} <= body["results"][0].keys()
    assert [each["index"] for each in body["errors"]] == [3]
