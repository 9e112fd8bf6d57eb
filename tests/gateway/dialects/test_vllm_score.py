"""vLLM's `/score` over HTTP: one query for all, or one for each, scores in the request's order."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.encoded_pictures import data_url, encode, picture

TEXTS = ["a blue square", "a red circle", "a list of numbers"]
NAMES = [
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
]
IMAGE = data_url(encode(picture()))
PARTS = {
    "content": [
        {"type": "text", "text": "a caption"},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ]
}
words = st.sampled_from(["a red circle", "a blue square", "three stars", "x"])


def ask(client: httpx.Client, path: str = "/score", **body: Any) -> httpx.Response:
    return client.post(path, json=body)


def scores(answer: httpx.Response, name: str = "score") -> list[float]:
    """The scores of an answer in which every pair has one, in the order of the answer."""
    data = answer.json()["data"]
    assert [each["index"] for each in data] == list(range(len(data)))
    return [each[name] for each in data]


def alone(client: httpx.Client, query: Any, document: Any) -> tuple[float, float]:
    """The probability and the logit of one pair in the service's own shape."""
    body = {"query": query, "documents": [document]}
    (result,) = client.post("/rerank", json=body).json()["results"]
    return result["relevance_score"], result["logit"]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", NAMES)
def test_one_query_is_scored_with_each_document(
    client: httpx.Client, path: str, names: tuple[str, str]
) -> None:
    queries, documents = names
    for query in ("a red circle", ["a red circle"]):
        answer = ask(client, path, model="gmr-tiny", **{queries: query, documents: TEXTS})
        assert scores(answer) == [alone(client, "a red circle", text)[0] for text in TEXTS]

    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "gmr-tiny")
    assert {each["object"] for each in body["data"]} == {"score"}
    assert isinstance(body["created"], int)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0
    assert "warnings" not in body["meta"]


@pytest.mark.parametrize("names", NAMES)
def test_one_query_with_one_document(client: httpx.Client, names: tuple[str, str]) -> None:
    pair = dict(zip(names, ["a red circle", "a blue square"], strict=True))
    assert scores(ask(client, **pair)) == [alone(client, *pair.values())[0]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(words, words), min_size=2, max_size=12))
def test_a_query_for_each_document_scores_as_each_pair_alone(
    client: httpx.Client, pairs: list[tuple[str, str]]
) -> None:
    """Whichever queries are equal, and in the order of the request; nothing comes of the cache."""
    answer = ask(
        client,
        queries=[query for query, _ in pairs],
        documents=[document for _, document in pairs],
        cache="bypass",
    )
    assert scores(answer, "logit") == [alone(client, *pair)[1] for pair in pairs]


def test_images_and_texts_are_scored_on_both_sides(client: httpx.Client) -> None:
    queries = [PARTS, "a red circle", PARTS]
    documents = ["a caption", PARTS, {"image": IMAGE}]
    answer = ask(client, data_1=queries, data_2=documents)
    assert scores(answer) == [
        alone(client, query, document)[0]
        for query, document in zip(queries, documents, strict=True)
    ]


@pytest.mark.parametrize("name", ["use_activation", "activation"])
def test_without_the_activation_scores_are_logits(client: httpx.Client, name: str) -> None:
    pairs = {"text_1": "a red circle", "text_2": TEXTS}
    raw = ask(client, **pairs, **{name: False})
    assert scores(raw) == scores(ask(client, **pairs), "logit")
    assert scores(ask(client, **pairs, **{name: None})) == scores(ask(client, **pairs))
    assert "warnings" not in raw.json()["meta"]


def test_options_of_a_ranking_have_no_effect_and_are_named(client: httpx.Client) -> None:
    answer = ask(client, queries="q", documents=TEXTS, top_n=1, min_score=1, user="u", query="x")
    assert len(scores(answer)) == len(TEXTS)
    assert answer.json()["meta"]["warnings"] == [
        "top_n has no effect here.",
        "min_score has no effect here.",
        "query has no effect here.",
    ]


def test_documents_beside_other_names_have_no_effect_and_are_named(client: httpx.Client) -> None:
    answer = ask(client, data_1="q", data_2=TEXTS, documents=["other"])
    assert scores(answer) == scores(ask(client, data_1="q", data_2=TEXTS))
    assert answer.json()["meta"]["warnings"] == ["documents has no effect here."]


def test_an_instruction_holds_for_every_query(client: httpx.Client) -> None:
    pairs = {"text_1": ["a red circle", "stars"], "text_2": ["a red circle", "stars"]}
    assert scores(ask(client, **pairs, instruction="Find numbers.")) != scores(ask(client, **pairs))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"queries": ["a", "b"], "documents": TEXTS},
            "documents must have as many entries as queries, or queries must have one: they have 2,"
            " and this has 3.",
        ),
        (
            {"text_1": ["a", "b"], "text_2": "one"},
            "text_2 must have as many entries as text_1, or text_1 must have one: they have 2, and"
            " this has 1.",
        ),
        ({"queries": [], "documents": TEXTS}, "queries must hold at least 1 query."),
        ({"data_1": "q", "data_2": []}, "data_2 must hold 1 to 1000 documents."),
        ({"queries": "q"}, "documents is required."),
        ({"text_1": None, "text_2": "a"}, "text_1 is required."),
        ({}, "queries is required."),
        ({"text_1": ["a", ""], "text_2": ["a", "b"]}, "text_1[1] needs a text or an image."),
        ({"text_1": "", "text_2": ["a", "b"]}, "text_1 needs a text or an image."),
        ({"text_1": "q", "text_2": ["a", 3]}, "text_2[1] must be a string or an object."),
        (
            {"data_1": "q", "data_2": [{"content": [{"type": "image_url"}]}]},
            "data_2[0].content[0] must hold what its type names",
        ),
        (
            {"queries": ["a", {"image": "bm90"}], "items": ["a", "b"]},
            "queries[1].image cannot be read",
        ),
        ({"queries": ["a", "b"], "items": ["a", {"image": "bm90"}]}, "items[1].image cannot be"),
        ({"queries": "a", "items": "b", "use_activation": "maybe"}, "use_activation must be true"),
        (
            {"queries": "a", "documents": "b", "chat_template": "x"},
            "chat_template is not accepted here",
        ),
    ],
)
def test_an_error_names_the_place_in_openais_shape(
    client: httpx.Client, fields: dict[str, Any], message: str
) -> None:
    refused = ask(client, **fields)
    body = refused.json()
    assert refused.status_code == body["error"]["code"] == httpx.codes.BAD_REQUEST
    assert body["detail"].startswith(message)
    assert body["error"]["message"] == body["message"] == body["detail"]
    assert body["error"]["type"] == "BadRequestError"
    assert message.startswith(body["error"]["param"])


def test_an_unknown_model_is_not_found(client: httpx.Client) -> None:
    refused = ask(client, queries="q", documents="d", model="other")
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert refused.json()["error"]["type"] == "NotFoundError"
    assert refused.json()["error"]["param"] is None


def test_with_skip_a_bad_query_or_document_is_listed_at_its_place(client: httpx.Client) -> None:
    body = ask(
        client,
        text_1=["a red circle", "", "q", {"image": "bm90"}, "x " * 9_000, "a red circle"],
        text_2=["a red circle", "a", "", "d", "e", "a blue square"],
        on_error="skip",
        truncate="none",
    ).json()
    assert [each["index"] for each in body["data"]] == [0, 5]
    assert [(each["index"], each["code"]) for each in body["errors"]] == [
        (1, "empty_item"),
        (2, "empty_item"),
        (3, "invalid_image"),
        (4, "pair_too_long"),
    ]
    places = [each["message"].partition(" ")[0] for each in body["errors"]]
    assert places == ["text_1[1]", "text_2[2]", "text_1[3].image", "text_1[4]"]


def test_a_query_that_is_too_long_by_itself_is_named(client: httpx.Client) -> None:
    refused = ask(client, text_1=["q", "x " * 9_000], text_2=["a", "b"], truncate="none")
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["errors"][0]["loc"] == ["text_1", 1]


def test_too_many_queries_are_refused_before_any_is_built(client: httpx.Client) -> None:
    refused = ask(client, queries=["q"] * 1001, documents=["d"] * 1001)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "1000" in refused.json()["detail"]
