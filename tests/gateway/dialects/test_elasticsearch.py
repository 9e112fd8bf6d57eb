"""Elasticsearch's inference API over HTTP: objects with `type`, `format` and `value`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.encoded_pictures import bare, data_url, encode, picture

PATH = "/_inference/rerank/gmr-tiny"
TEXTS = ["a blue square", "a red circle", "a list of numbers"]
IMAGE = encode(picture())


def ask(client: httpx.Client, path: str = PATH, **fields: Any) -> httpx.Response:
    return client.post(path, json={"query": "a red circle", "input": TEXTS} | fields)


def native(client: httpx.Client, **fields: Any) -> list[tuple[int, float]]:
    body = {"query": "a red circle", "documents": TEXTS} | fields
    return ranking(client.post("/rerank", json=body).json()["results"])


def ranking(results: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(each["index"], each["relevance_score"]) for each in results]


@pytest.mark.parametrize("path", [PATH, "/_inference/gmr-tiny"])
def test_an_answer_is_elasticsearchs(client: httpx.Client, path: str) -> None:
    answer = ask(client, path)
    assert ranking(answer.json()["rerank"]) == native(client)
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    assert "text" not in answer.json()["rerank"][0]


def test_a_client_of_elastic_may_send_its_own_content_type(client: httpx.Client) -> None:
    content = b'{"query": "a red circle", "input": "a blue square"}'
    kind = "application/vnd.elasticsearch+json; compatible-with=9"
    answer = client.post(PATH, content=content, headers={"content-type": kind})
    assert len(answer.json()["rerank"]) == 1


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "value": bare(IMAGE)},
        {"type": "image", "format": "base64", "value": data_url(IMAGE)},
    ],
)
def test_images_and_texts_are_ranked_on_both_sides(
    client: httpx.Client, image: dict[str, str]
) -> None:
    text = {"type": "text", "format": "text", "value": "a red circle"}
    rows = ask(client, query=image, input=[text, image, "a"], return_documents=True).json()
    own = {"image": data_url(IMAGE)}
    assert ranking(rows["rerank"]) == native(
        client, query=own, documents=["a red circle", own, "a"]
    )
    texts = {each["index"]: each["text"] for each in rows["rerank"]}
    assert texts == {0: "a red circle", 1: "", 2: "a"}
    assert len(ask(client, input=image).json()["rerank"]) == 1


def test_task_settings_are_options_that_the_request_precedes(client: httpx.Client) -> None:
    settings = {"top_n": 1, "return_documents": True}
    (best,) = ask(client, task_settings=settings).json()["rerank"]
    assert best["text"] == TEXTS[best["index"]]
    assert len(ask(client, task_settings=settings, top_n=2).json()["rerank"]) == 2


def test_the_services_own_fields_are_reachable(client: httpx.Client) -> None:
    body = ask(client, input=["", {"type": "text", "value": "a"}], on_error="skip").json()
    assert [(each["index"], each["message"]) for each in body["errors"]] == [
        (0, "input[0] needs a text or an image.")
    ]
    assert "logit" in body["rerank"][0]
    assert body["meta"]["model_digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query": None}, "query is required."),
        ({"query": {"type": "text", "value": ""}}, "query needs a text or an image."),
        ({"query": {"type": "image", "value": "bm90"}}, "query.value cannot be read"),
        ({"query": {"text": "q"}}, "query.type is required"),
        ({"input": [{"image": "bm90"}]}, "input[0].type is required"),
        ({"input": ["a", {"type": "video", "value": "a"}]}, "input[1].type must be 'text' or"),
        ({"input": [{"type": "text", "value": "a", "id": 1}]}, "input[0].id is not a known field"),
        (
            {"input": [{"type": "text", "format": "base64", "value": "a"}]},
            "input[0] must have the format text for a text, and base64 or url for an image.",
        ),
        (
            {"input": [{"type": "image", "value": "https://example.com/a.png"}]},
            "input[0].value must be a URL where format is url, and base64 or a data URL otherwise.",
        ),
        (
            {"input": [{"type": "image", "format": "url", "value": bare(IMAGE)}]},
            "input[0].value must be a URL where format is url",
        ),
        (
            {"input": [{"type": "image", "format": "url", "value": "https://example.com/a.png"}]},
            "input[0].value: image URLs are not fetched here",
        ),
        ({"input": [{"type": "text", "value": data_url(IMAGE)}]}, "input[0] holds a picture as"),
        ({"input": [["a"]]}, "input[0] must be a string or an object."),
        ({"input": []}, "input must hold 1 to 1000 documents."),
        ({"top_n": "many"}, "top_n must be a whole number."),
        ({"task_settings": {"top_n": "many"}}, "task_settings.top_n must be a whole number."),
        ({"task_settings": []}, "task_settings must be an object."),
    ],
)
def test_an_error_names_the_place_as_elasticsearch_does(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, **fields)
    body = refused.json()
    (cause,) = body["error"]["root_cause"]
    assert refused.status_code == body["status"] == httpx.codes.BAD_REQUEST
    assert body["error"]["reason"] == cause["reason"] == body["detail"]
    assert body["error"]["type"] == "illegal_argument_exception"
    assert body["detail"].startswith(message)


@pytest.mark.parametrize("name", [".rerank-v1-elasticsearch", "a/b"])
def test_an_unknown_endpoint_names_the_models(client: httpx.Client, name: str) -> None:
    refused = ask(client, f"/_inference/rerank/{name}")
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert refused.json()["error"]["type"] == "resource_not_found_exception"
    assert "gmr-tiny" in refused.json()["error"]["reason"]


def test_the_path_names_the_model(client: httpx.Client) -> None:
    assert ask(client, model="gmr-tiny").status_code == 200
    refused = ask(client, model="another")
    assert refused.status_code == 400
    assert refused.json()["message"] == (
        "model must equal the model that the path names, or be left out."
    )
