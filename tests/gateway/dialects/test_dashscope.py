"""DashScope's dialect over HTTP: `input` and `parameters` are sent, `output` is answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.encoded_pictures import data_url, encode, picture

PATH = "/api/v1/services/rerank/text-rerank/text-rerank"
TEXTS = ["a blue square", "a red circle", "a list of numbers"]
IMAGE = data_url(encode(picture()))


def ask(
    client: httpx.Client,
    query: Any = "a red circle",
    documents: Any = TEXTS,
    parameters: Any = None,
    **fields: Any,
) -> httpx.Response:
    body = {"model": "gmr-tiny", "input": {"query": query, "documents": documents}}
    return client.post(PATH, json=body | {"parameters": parameters} | fields)


def native(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    body = {"query": "a red circle", "documents": TEXTS} | fields
    results: list[dict[str, Any]] = client.post("/rerank", json=body).json()["results"]
    return results


def ranking(results: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(each["index"], each["relevance_score"]) for each in results]


def test_an_answer_is_dashscopes(client: httpx.Client) -> None:
    answer = ask(client)
    body = answer.json()
    assert ranking(body["output"]["results"]) == ranking(native(client))
    assert body["usage"]["total_tokens"] > 0
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["errors"] == []


def test_parameters_are_options(client: httpx.Client) -> None:
    parameters = {"top_n": 1, "return_documents": True, "instruct": "Find numbers."}
    body = ask(client, parameters=parameters).json()
    (best,) = body["output"]["results"]
    assert best["document"] == {"text": TEXTS[best["index"]]}
    assert ranking([best]) == ranking(native(client, instruction="Find numbers.", top_n=1))
    assert "warnings" not in body["meta"]


def test_texts_and_images_are_ranked_on_both_sides(client: httpx.Client) -> None:
    documents = [{"text": "a"}, {"image": IMAGE}, "a", {"text": "a", "image": IMAGE}]
    body = ask(client, {"image": IMAGE}, documents).json()
    expected = native(client, query={"image": IMAGE}, documents=documents)
    assert ranking(body["output"]["results"]) == ranking(expected)


def test_the_services_own_fields_are_reachable_in_either_place(client: httpx.Client) -> None:
    for fields in ({"parameters": {"on_error": "skip"}}, {"on_error": "skip"}):
        body = ask(client, documents=["", *TEXTS], **fields).json()
        assert [(each["index"], each["code"]) for each in body["errors"]] == [(0, "empty_item")]
        assert {"logit", "meta"} <= body["output"]["results"][0].keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {"top_n": -1}}, "parameters.top_n must be at least 0."),
        ({"parameters": {"instruct": 3}}, "parameters.instruct must be a string."),
        ({"parameters": []}, "parameters must be an object."),
        ({"parameters": {"cache_salt": "x"}}, "parameters.cache_salt is not accepted here"),
        ({"input": None}, "input is required."),
        ({"input": "q"}, "input must be an object."),
        ({"input": {"documents": TEXTS}}, "input.query is required."),
        ({"input": {"query": "q"}}, "input.documents is required."),
        ({"documents": []}, "input.documents must hold 1 to 1000 documents."),
        ({"documents": ["a", ""]}, "input.documents[1] needs a text or an image."),
        ({"documents": [{"video": "a"}]}, "input.documents[0].video is not a known field"),
        ({"documents": [{"image": "bm90"}]}, "input.documents[0].image cannot be read"),
        ({"query": ""}, "input.query needs a text or an image."),
    ],
)
def test_an_error_names_the_place(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, **fields)
    body = refused.json()
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert body["message"].startswith(message)
    assert {"code", "message", "request_id"} <= body.keys()


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"query": "other"}, "input.query must equal query where both are sent."),
        ({"documents": ["other"]}, "input.documents must equal documents where both are sent."),
        (
            {"top_n": 1, "parameters": {"top_n": 2}},
            "parameters.top_n must equal top_n where both are sent.",
        ),
        (
            {"parameters": {"query": "other"}},
            "input.query must equal parameters.query where both are sent.",
        ),
    ],
)
def test_a_field_of_two_objects_has_one_value(
    client: httpx.Client, beside: dict[str, Any], message: str
) -> None:
    body = {"input": {"query": "a red circle", "documents": TEXTS}, **beside}
    refused = client.post(PATH, json=body)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["message"] == message


def test_a_null_leaves_the_other_objects_value(client: httpx.Client) -> None:
    body = {
        "top_n": 1,
        "input": {"query": "a red circle", "documents": TEXTS},
        "parameters": {"top_n": None},
    }
    assert len(client.post(PATH, json=body).json()["output"]["results"]) == 1


def test_too_many_documents_are_refused_before_any_is_built(client: httpx.Client) -> None:
    refused = ask(client, documents=["d"] * 1001)
    assert refused.json()["message"] == "input.documents: a request takes 1 to 1000 documents."


def test_the_flat_path_takes_the_services_own_shape(client: httpx.Client) -> None:
    body = {"model": "gmr-tiny", "query": "a red circle", "documents": TEXTS, "instruct": "Find."}
    answer = client.post("/compatible-api/v1/reranks", json=body).json()
    assert ranking(answer["results"]) == ranking(native(client, instruction="Find."))
