"""Voyage's dialect over HTTP: `top_k` and `truncation` mark it, and the answer has `data`."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

DOCUMENTS = ["a blue square", "a red circle", "a list of numbers"]
BODY = {"model": "gmr-tiny", "query": "a red circle", "documents": DOCUMENTS}
PATHS = ["/rerank", "/v1/rerank"]


def asked(client: httpx.Client, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
    return client.post(path, json=BODY | fields)


def ranking(answer: httpx.Response) -> list[tuple[int, float]]:
    body = answer.json()
    entries = body["data"] if "data" in body else body["results"]
    return [(each["index"], each["relevance_score"]) for each in entries]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "marks", [{"top_k": None, "truncation": True}, {"top_k": 3}, {"truncation": False}]
)
def test_an_answer_is_voyages(client: httpx.Client, path: str, marks: dict[str, Any]) -> None:
    body = asked(client, path, **marks).json()
    native = asked(client, "/v2/rerank").json()

    assert body["object"] == "list"
    assert body["model"] == "gmr-tiny"
    assert body["usage"] == native["usage"]
    assert [each["index"] for each in body["data"]] == [each["index"] for each in native["results"]]
    assert "results" not in body


def test_top_k_shortens_the_data_and_documents_are_strings(client: httpx.Client) -> None:
    (best,) = asked(client, top_k=1, return_documents=True).json()["data"]
    assert best["document"] == DOCUMENTS[best["index"]]
    assert {"index", "relevance_score", "logit", "meta"} <= best.keys()


def test_without_truncation_a_long_text_is_refused(client: httpx.Client) -> None:
    long = ["word " * 9_000, *DOCUMENTS]
    refused = asked(client, documents=long, truncation=False)
    assert (refused.status_code, refused.json()["code"]) == (400, "pair_too_long")
    assert refused.json()["detail"].startswith("documents[0]")
    assert asked(client, documents=long, truncation=True).status_code == httpx.codes.OK


def test_on_v1_a_request_without_a_mark_has_both_lists(client: httpx.Client) -> None:
    text = asked(client).text
    body = asked(client).json()
    assert body["data"] == body["results"]
    assert text.index('"results"') < text.index('"usage":{') < text.index('"data"')
    for path in ("/rerank", "/v2/rerank"):
        assert "data" not in asked(client, path).json()


def test_an_error_names_voyages_field(client: httpx.Client) -> None:
    refused = asked(client, top_k=-1)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["detail"] == "top_k must be at least 0."
    assert refused.json()["errors"][0]["loc"] == ["top_k"]
    assert asked(client, truncation="some").json()["detail"].startswith("truncation must be ")
    assert asked(client, top_k=1, top_n=2).json()["detail"].startswith("top_k must equal top_n")


def test_own_fields_are_reachable(client: httpx.Client) -> None:
    body = asked(
        client,
        documents=[*DOCUMENTS, ""],
        top_k=None,
        on_error="skip",
        instruction="Find pictures.",
        min_score=0.0,
        cache="bypass",
        topn=3,
    ).json()
    assert [each["index"] for each in body["errors"]] == [3]
    assert body["meta"]["warnings"] == [
        "topn is not a known field and had no effect. Is top_n meant?"
    ]
    assert (
        ranking(asked(client, top_k=2, instruction="Find pictures."))[0][1]
        == body["data"][0]["relevance_score"]
    )


def test_on_v2_its_names_are_taken_and_named_in_warnings(client: httpx.Client) -> None:
    body = asked(client, "/v2/rerank", top_k=1, truncation=True).json()
    assert len(body["results"]) == 1
    assert body["meta"]["warnings"] == [
        "top_k was taken as top_n.",
        "truncation was taken as truncate.",
    ]
