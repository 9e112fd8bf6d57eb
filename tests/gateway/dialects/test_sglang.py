"""SGLang's requests on the paths of the service's own shape, and its answer on its own path."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.encoded_pictures import data_url, encode, picture

PATH = "/sglang/v1/rerank"
TEXT = {"type": "text", "text": "a red circle"}
IMAGE = {"type": "image_url", "image_url": {"url": data_url(encode(picture()))}}
BODY = {"query": [TEXT, IMAGE], "documents": [[IMAGE], [TEXT, IMAGE], "a blue square"]}


def ask(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, json=BODY | fields)


def native(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    documents = [{"content": [IMAGE]}, {"content": [TEXT, IMAGE]}, "a blue square"]
    body = {"query": {"content": [TEXT, IMAGE]}, "documents": documents} | fields
    results: list[dict[str, Any]] = client.post("/rerank", json=body).json()["results"]
    return results


def ranking(results: list[dict[str, Any]], name: str = "relevance_score") -> list[Any]:
    return [(each["index"], each[name]) for each in results]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_lists_of_content_parts_are_items(client: httpx.Client, path: str) -> None:
    answer = ask(client, path, instruct="Find.").json()
    assert ranking(answer["results"]) == ranking(native(client, instruction="Find."))


def test_on_sglangs_path_the_answer_is_a_bare_list_with_documents(client: httpx.Client) -> None:
    rows = ask(client, PATH).json()
    assert ranking(rows, "score") == ranking(native(client))
    assert {each["index"]: each["document"] for each in rows} == {
        0: "",
        1: "a red circle",
        2: "a blue square",
    }
    assert {"id", "logit", "prompt_tokens"} <= rows[0]["meta_info"].keys()


def test_documents_are_left_out_and_rows_cut_where_asked(client: httpx.Client) -> None:
    (best,) = ask(client, PATH, return_documents=False, top_n=1).json()
    assert "document" not in best
    assert len(ask(client, PATH, top_n=None).json()) == 3


def test_with_skip_failures_follow_the_rows(client: httpx.Client) -> None:
    *rows, failure = ask(client, PATH, documents=["a", []], on_error="skip").json()
    assert [each["index"] for each in rows] == [0]
    assert failure["index"] == 1
    assert failure["message"] == "documents[1] needs a text or an image."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"documents": [["a"]]}, "documents[0].content[0] must be an object."),
        ({"documents": [[{"type": "video_url"}]]}, "documents[0].content[0].type must be"),
        ({"documents": [TEXT]}, "documents[0].type is not a known field"),
        ({"query": []}, "query needs a text or an image."),
        ({"top_n": -1}, "top_n must be at least 0."),
        ({"instruct": 1}, "instruct must be a string."),
    ],
)
def test_an_error_is_flat_with_sglangs_keys(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, PATH, **fields)
    body = refused.json()
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert (body["object"], body["type"]) == ("error", "BadRequest")
    assert body["message"].startswith(message)
    assert message.startswith(body["param"])
