"""TEI's dialect over HTTP: `texts` marks it, and the answer is a bare list."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

TEXTS = ["a blue square", "a red circle", "a list of numbers"]
BODY = {"query": "a red circle", "texts": TEXTS}
PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 9


def asked(client: httpx.Client, path: str = "/rerank", **fields: Any) -> httpx.Response:
    return client.post(path, json=BODY | fields)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_an_answer_is_a_list_with_the_native_order_and_scores(
    client: httpx.Client, path: str
) -> None:
    native = client.post("/v2/rerank", json={"query": "a red circle", "documents": TEXTS}).json()
    expected = [
        {"index": each["index"], "score": each["relevance_score"]} for each in native["results"]
    ]

    assert asked(client, path).json() == expected
    raw = asked(client, path, raw_scores=True, return_text=True).json()
    assert raw == [
        {"index": each["index"], "text": TEXTS[each["index"]], "score": each["logit"]}
        for each in native["results"]
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"texts": ["a", {"image": PICTURE}]}, "texts[1] must be a string."),
        ({"texts": ["a", None]}, "texts[1]"),
        ({"texts": ["a", ""]}, "texts[1] needs a text or an image."),
        ({"texts": ["a", f"see {PICTURE}"]}, "texts[1]"),
        ({"texts": []}, "texts must hold 1 to 1000 documents."),
        ({"texts": None}, "texts is required."),
        ({"query": None}, "query is required."),
        ({"query": {"text": "q"}}, "query must be a string."),
        ({"truncation_direction": "Left"}, "truncation_direction must be 'Right', or"),
        ({"truncation_direction": "Up"}, "truncation_direction must be 'Right' or 'Left'."),
        ({"truncation_direction": "left"}, "truncation_direction must be 'Right', or"),
        ({"raw_scores": "maybe"}, "raw_scores must be true or false."),
        ({"return_text": 7}, "return_text must be true or false."),
        ({"documents": ["b"]}, "texts must equal documents where both are sent."),
    ],
)
def test_an_error_is_named_as_tei_names_it(
    client: httpx.Client, fields: dict[str, Any], says: str
) -> None:
    refused = asked(client, **fields)
    body = refused.json()
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert body["error"].startswith(says)
    assert body["error_type"] == "Validation"
    assert body["message"] == body["detail"] == body["error"]


def test_texts_are_cut_or_refused(client: httpx.Client) -> None:
    long = {"texts": ["word " * 9_000, "a red circle"]}
    assert asked(client, **long).status_code == httpx.codes.OK
    assert asked(client, **long, truncate=True).status_code == httpx.codes.OK
    refused = asked(client, **long, truncate=False, truncation_direction="Left")
    assert refused.json()["code"] == "pair_too_long"
    assert refused.json()["error"].startswith("texts[0]: ")


def test_own_fields_are_reachable(client: httpx.Client) -> None:
    body = asked(client, texts=[*TEXTS, ""], on_error="skip", top_n=1, instruction="i").json()
    assert body[0].keys() == {"index", "score"}
    assert body[1:] == [
        {
            "index": 3,
            "error": "texts[3] needs a text or an image.",
            "error_type": "Validation",
            "code": "empty_item",
        }
    ]


def test_at_the_root_documents_have_a_bare_list_too(client: httpx.Client) -> None:
    """Elasticsearch's service `hugging_face` sends them so, and refuses unknown keys."""
    expected = asked(client).json()
    assert asked(client, "/").json() == expected
    assert asked(client, "/invocations").json() == expected

    body = {"query": "a red circle", "documents": TEXTS, "return_documents": True, "top_n": 2}
    found = client.post("/", json=body).json()
    assert found == [each | {"text": TEXTS[each["index"]]} for each in expected[:2]]

    refused = client.post("/", json=body | {"documents": ["a", {"image": PICTURE}]})
    assert refused.json()["error"] == "documents[1] must be a string."
    assert "results" in client.post("/invocations", json=body).json()


def test_info_says_what_dify_asks_tei_for(client: httpx.Client) -> None:
    info = client.get("/info").json()
    assert list(info["model_type"]) == ["reranker"]
    assert info["model_id"] == info["model"] == "gmr-tiny"
    assert info["max_input_length"] == info["limits"]["max_pair_tokens"]
    assert info["max_client_batch_size"] == info["limits"]["max_documents"]
