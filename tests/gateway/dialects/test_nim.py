"""NVIDIA's dialect over HTTP: passages in the request, logits in the answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.encoded_pictures import bare, data_url, encode, picture

TEXTS = ["a blue square", "a red circle", "a list of numbers"]
BODY = {
    "model": "gmr-tiny",
    "query": {"text": "a red circle"},
    "passages": [{"text": text} for text in TEXTS],
}
IMAGE = encode(picture())
PATHS = [
    "/v1/ranking",
    "/v1/reranking",
    "/reranking",
    "/v1/retrieval/nvidia/reranking",
    "/v1/retrieval/nvidia/llama-nemotron-rerank-vl-1b-v2/reranking",
]


def ask(client: httpx.Client, path: str = "/v1/ranking", **fields: Any) -> httpx.Response:
    return client.post(path, json=BODY | fields)


def native(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(
        "/rerank", json={"query": "a red circle", "documents": TEXTS} | fields
    ).json()
    return answer


@pytest.mark.parametrize("path", PATHS)
def test_every_passage_is_ranked_by_its_logit(client: httpx.Client, path: str) -> None:
    body = ask(client, path, truncate="END").json()
    expected = native(client)
    assert body == {
        "rankings": [
            {"index": each["index"], "logit": each["logit"]} for each in expected["results"]
        ],
        "usage": expected["usage"],
    }


@pytest.mark.parametrize("most", [{"top_k": 1}, {"top_n": 1}])
def test_litellm_and_ragflow_may_ask_for_the_best(
    client: httpx.Client, most: dict[str, int]
) -> None:
    assert len(ask(client, **most).json()["rankings"]) == 1
    assert len(ask(client, **dict.fromkeys(most, 99)).json()["rankings"]) == len(TEXTS)


@pytest.mark.parametrize("image", [data_url(IMAGE), bare(IMAGE)])
def test_images_are_ranked_in_both_spellings(client: httpx.Client, image: str) -> None:
    """LangChain sends `text: ""` beside an image."""
    passages = [{"text": "", "image": image}, {"image": image}, {"text": "a", "image": image}]
    rankings = ask(client, passages=passages).json()["rankings"]

    url = {"image": data_url(IMAGE)}
    results = native(client, documents=[url, url, {"text": "a"} | url])
    assert [(each["index"], each["logit"]) for each in rankings] == [
        (each["index"], each["logit"]) for each in results["results"]
    ]


@pytest.mark.parametrize("truncate", ["NONE", "none", "None"])
def test_truncate_none_refuses_a_long_passage(client: httpx.Client, truncate: str) -> None:
    long = [{"text": "word " * 9_000}, {"text": "a"}]
    refused = ask(client, passages=long, truncate=truncate)
    assert (refused.status_code, refused.json()["code"]) == (400, "pair_too_long")
    assert refused.json()["errors"][0]["loc"] == ["passages", 0]
    assert ask(client, passages=long, truncate="end").status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"top": 3},
            "top is not a known field: model, query, passages and truncate are.",
        ),
        (
            {"passages": [{"text": "a"}, {"text": "b", "imag": "x"}]},
            "passages[1].imag is not a known field: a passage has text and image.",
        ),
        ({"passages": [{"text": ""}]}, "passages[0] needs a text or an image."),
        ({"passages": [3]}, "passages[0] must be a string or an object."),
        ({"passages": []}, "passages must hold 1 to 1000 documents."),
        ({"passages": None}, "passages is required."),
        ({"query": {"text": ""}}, "query needs a text or an image."),
        ({"query": None}, "query is required."),
        ({"truncate": "START"}, "truncate must be 'end' or 'none'"),
        (
            {"passages": [{"image": "bm90IGFuIGltYWdl"}]},
            "passages[0].image cannot be read: send PNG, JPEG or WebP.",
        ),
        ({"passages": [{"text": data_url(IMAGE)}]}, "passages[0] holds a picture as text"),
    ],
)
def test_an_error_names_the_place_and_is_what_nvidias_clients_print(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, **fields)
    body = refused.json()
    assert refused.status_code == body["status"] == httpx.codes.BAD_REQUEST
    assert body["title"] == "Bad Request"
    assert body["detail"].startswith(message)
    assert body["requestId"] == body["request_id"] == refused.headers["x-request-id"]


def test_errors_before_the_body_is_read_have_the_shape_too(client: httpx.Client) -> None:
    refused = client.post("/v1/ranking", content="{}", headers={"content-type": "text/plain"})
    assert refused.json()["title"] == "Unsupported Media Type"


def test_an_unknown_model_names_those_that_are_served(client: httpx.Client) -> None:
    refused = ask(client, model="nvidia/other")
    assert refused.status_code == refused.json()["status"] == httpx.codes.NOT_FOUND
    assert "gmr-tiny" in refused.json()["detail"]


def test_with_skip_a_bad_passage_is_listed_and_the_rest_ranked(client: httpx.Client) -> None:
    body = ask(client, passages=[{"text": ""}, {"text": "a"}, {"txt": "b"}], on_error="skip").json()
    assert [each["index"] for each in body["rankings"]] == [1]
    assert [(each["index"], each["message"]) for each in body["errors"]] == [
        (0, "passages[0] needs a text or an image."),
        (2, "passages[2].txt is not a known field: a passage has text and image."),
    ]


def test_too_many_passages_are_refused_before_any_is_built(client: httpx.Client) -> None:
    refused = ask(client, passages=[{"text": "a"}] * 1001)
    assert refused.json()["errors"][0]["loc"] == ["passages"]
    assert "1000" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking"])
def test_without_passages_these_paths_speak_the_services_own_shape(
    client: httpx.Client, path: str
) -> None:
    """As llama.cpp's server does."""
    body = client.post(path, json={"query": "a red circle", "documents": TEXTS}).json()
    assert body["results"] == native(client)["results"]
