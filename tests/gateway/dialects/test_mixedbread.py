"""Mixedbread's dialect over HTTP: `input` in the request, `data` in the answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.encoded_pictures import data_url, encode, picture

TEXTS = ["a blue square", "a red circle", "a list of numbers"]
BODY = {"model": "gmr-tiny", "query": "a red circle", "input": TEXTS}
IMAGE = {"type": "image_url", "image_url": {"url": data_url(encode(picture()))}}


def ask(client: httpx.Client, path: str = "/v1/reranking", **fields: Any) -> httpx.Response:
    return client.post(path, json=BODY | fields)


def native(client: httpx.Client, documents: list[Any]) -> list[dict[str, Any]]:
    body = {"query": "a red circle", "documents": documents}
    results: list[dict[str, Any]] = client.post("/rerank", json=body).json()["results"]
    return results


@pytest.mark.parametrize("path", ["/v1/reranking", "/reranking"])
def test_an_answer_is_mixedbreads(client: httpx.Client, path: str) -> None:
    body = ask(client, path).json()
    expected = native(client, TEXTS)
    assert [(each["index"], each["score"], each["object"]) for each in body["data"]] == [
        (each["index"], each["relevance_score"], "rank_result") for each in expected
    ]
    assert (body["object"], body["model"]) == ("list", "gmr-tiny")
    assert (body["top_k"], body["return_input"]) == (3, False)
    assert body["usage"]["total_tokens"] > 0
    assert "warnings" not in body["meta"]


def test_top_k_shortens_the_data_and_inputs_are_returned(client: httpx.Client) -> None:
    body = ask(client, top_k=1, return_input=True).json()
    (best,) = body["data"]
    assert best["input"] == TEXTS[best["index"]]
    assert (body["top_k"], body["return_input"]) == (1, True)
    assert ask(client, top_k=99).json()["top_k"] == len(TEXTS)


def test_objects_are_ranked_by_the_named_fields(client: httpx.Client) -> None:
    objects = [{"title": "a", "body": text, "id": text} for text in TEXTS]
    data = ask(client, input=objects, rank_fields=["body"], return_input=True).json()["data"]
    assert [(each["index"], each["score"]) for each in data] == [
        (each["index"], each["relevance_score"]) for each in native(client, TEXTS)
    ]
    assert {each["input"] for each in data} == {each["id"] for each in data} == set(TEXTS)


def test_content_parts_are_ranked_alone_and_in_lists(client: httpx.Client) -> None:
    text = {"type": "text", "text": "a red circle"}
    data = ask(client, input=[text, IMAGE, [text, IMAGE]], return_input=True).json()["data"]
    expected = native(client, [{"content": parts} for parts in ([text], [IMAGE], [text, IMAGE])])
    assert [(each["index"], each["score"]) for each in data] == [
        (each["index"], each["relevance_score"]) for each in expected
    ]
    assert {each["input"] for each in data if each["index"] == 1} == {""}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": -1}, "top_k must be at least 0."),
        ({"input": []}, "input must hold 1 to 1000 documents."),
        ({"input": ["a", ""]}, "input[1] needs a text or an image."),
        ({"input": ["a", {"title": "b"}]}, "input[1].title is not a known field: rank_fields"),
        ({"input": ["a", {"type": "video_url"}]}, "input[1].content[0].type must be 'text' or"),
        ({"input": [[{"type": "image_url"}]]}, "input[0].content[0] must hold what its type"),
        ({"return_input": "maybe"}, "return_input must be true or false."),
        ({"query": None}, "query is required."),
    ],
)
def test_an_error_names_the_place(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, **fields)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["detail"].startswith(message)


def test_the_services_own_fields_are_reachable(client: httpx.Client) -> None:
    body = ask(client, input=["", *TEXTS], on_error="skip", min_score=0, cache="bypass").json()
    assert [each["index"] for each in body["errors"]] == [0]
    assert len(body["data"]) == len(TEXTS)
    assert {"logit", "meta"} <= body["data"][0].keys()


def test_a_field_without_effect_is_named(client: httpx.Client) -> None:
    (warning,) = ask(client, rewrite_query=True).json()["meta"]["warnings"]
    assert warning.startswith("rewrite_query is not a known field")
