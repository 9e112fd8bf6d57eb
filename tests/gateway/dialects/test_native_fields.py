"""Fields that clients send beside text: ids, metadata, their own, other vendors', misspelt ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from service.errors import BadRequest, EmptyItem, InvalidRequest
from service.fields import MAX_METADATA_BYTES
from service.gateway.dialects import native
from service.gateway.dialects.fields.names import IGNORED, MAX_WARNINGS
from service.gateway.domain import RerankQuery, RerankResult, ScoredDocument
from service.items import Item
from service.limits import Limits
from service.wire import ImageRule, Scored, WorkerInfo

LIMITS = Limits(max_documents=5, max_text_chars=200)
MODEL = WorkerInfo(
    "gmr-tiny",
    "sha256:12",
    "gmr",
    "code",
    "find",
    3200,
    ImageRule(28, 12544, 50176),
    "torch",
    "float32",
    "cpu",
)
VALUE = "a value that no warning repeats"
PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 9


def ask(**fields: Any) -> RerankQuery:
    return native.read({"query": "q", "documents": ["d"], **fields}, LIMITS)


def refused(**fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        ask(**fields)
    return caught.value.sentence()


def texts(asked: RerankQuery) -> list[str | None]:
    return [each.text if isinstance(each, Item) else None for each in asked.documents]


def answered(asked: RerankQuery) -> dict[str, Any]:
    """The answer over HTTP, with every document scored."""
    ranked = [
        ScoredDocument(index, Scored(0.0, 9, 0, truncated=False), cached=False)
        for index in range(len(asked.documents))
    ]
    answer = native.write(asked, RerankResult(MODEL, ranked, []), "rr-1").model_dump_json(
        exclude_none=True
    )
    body: dict[str, Any] = json.loads(answer)
    return body


@pytest.mark.parametrize("sent", [0, None])
def test_a_top_n_of_nought_is_all(sent: object) -> None:
    assert ask(top_n=sent).top_n is None


@pytest.mark.parametrize("name", ["top_n", "min_score", "timeout_ms"])
@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_no_number(name: str, value: bool) -> None:
    assert refused(**{name: value}).startswith(f"{name} must be a ")


@pytest.mark.parametrize(
    ("setting", "sent", "skips"),
    [("fail", None, False), ("skip", None, True), ("skip", "fail", False), ("fail", "skip", True)],
)
def test_what_becomes_of_bad_documents_is_the_operators_default_and_the_requests_choice(
    setting: Any, sent: object, skips: bool
) -> None:
    body = {"query": "q", "documents": ["d", ""], "on_error": sent}
    assert native.read(body, LIMITS, setting).skip_errors is skips


@pytest.mark.parametrize("identifier", ["p7", "", "x" * 256, 0, 7, -(2**63), 2**63 - 1])
def test_an_id_is_sent_back_with_the_type_it_had(identifier: object) -> None:
    (result,) = answered(ask(documents={"text": "d", "id": identifier}))["results"]
    assert result["id"] == identifier
    assert type(result["id"]) is type(identifier)


@pytest.mark.parametrize("identifier", ["x" * 257, 2**63, -(2**63) - 1, 10**400, 7.0, True, [], {}])
def test_what_is_no_id_is_refused(identifier: object) -> None:
    (document,) = ask(documents={"text": "d", "id": identifier}).documents
    assert isinstance(document, InvalidRequest)
    assert document.sentence().startswith(
        "documents[0].id must be a string of at most 256 characters"
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=5), min_size=1, max_size=3)
)
def test_metadata_comes_back_as_it_was_sent(sent: list[dict[str, Any]]) -> None:
    body = {"query": "q", "documents": [{"text": "d", "metadata": each} for each in sent]}
    read = native.read(from_json(json.dumps(body)), LIMITS)

    assert [each["metadata"] for each in answered(read)["results"]] == json.loads(json.dumps(sent))
    assert texts(read) == ["d"] * len(sent)


def test_metadata_has_a_bound_and_a_depth() -> None:
    full = {"a": "ä" * ((MAX_METADATA_BYTES - len('{"a":""}')) // 2)}
    assert (
        answered(ask(documents={"text": "d", "metadata": full}))["results"][0]["metadata"] == full
    )
    for wrong in ({"a": full["a"] + "x"}, {"deep": deep(300)}, [], "text", 7):
        (document,) = ask(documents={"text": "d", "metadata": wrong}).documents
        assert isinstance(document, InvalidRequest), wrong
        assert document.sentence().startswith("documents[0].metadata must be a")


@pytest.mark.parametrize("levels", [190, *range(235, 260)])
def test_metadata_of_any_depth_is_sent_back_or_refused(levels: int) -> None:
    metadata = {"deep": deep(levels)}
    read = ask(documents={"text": "d", "metadata": metadata})
    if isinstance(read.documents[0], Item):
        assert answered(read)["results"][0]["metadata"] == metadata
    else:
        assert levels > 190  # more than the parser of JSON lets in


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


def test_unknown_fields_are_named_in_warnings_and_change_nothing() -> None:
    read = ask(topn=5, task="retrieval.query", prompt="p")
    assert read.warnings == (
        "topn is not a known field and had no effect. Is top_n meant?",
        "task is not a known field and had no effect.",
        "prompt is not a known field and had no effect.",
    )
    assert (read.top_n, read.instruction) == (None, None)
    assert answered(read)["meta"]["warnings"] == list(read.warnings)
    assert "warnings" not in answered(ask(**dict.fromkeys(IGNORED, 1)))["meta"]


@given(st.lists(st.text(min_size=1, max_size=200), unique=True, min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_warnings_are_few_and_short_whatever_is_sent(names: list[str]) -> None:
    body = {"query": "q", "documents": ["d"]} | {f"x{name}": VALUE for name in names}
    warnings = native.read(body, LIMITS).warnings

    assert len(warnings) == min(len(names), MAX_WARNINGS + 1)
    for warning in warnings:
        assert len(warning) < 64 * 12 + 120  # each character may be escaped
        assert warning.isprintable()
        assert VALUE not in warning


def test_an_instruction_of_another_vendor_is_taken() -> None:
    read = ask(instruct="find a picture")
    assert read.instruction == "find a picture"
    assert read.warnings == ("instruct was taken as instruction.",)
    assert ask(instruct="same", instruction="same").instruction == "same"
    assert (
        refused(instruct="one", instruction="another")
        == "instruct must equal instruction where both are sent."
    )


def test_rank_fields_say_what_is_read_of_a_document_and_in_which_order() -> None:
    book = {
        "title": "A title",
        "text": "Its text.",
        "author": "Clara",
        "year": 1999,
        "id": 7,
        "image": "aaaa",
    }
    read = ask(documents=[book, "plain"], rank_fields=["title", "text"])

    assert texts(read) == ["A title\nIts text.", "plain"]
    assert texts(ask(documents=[book], rank_fields=["text", "author"])) == ["Its text.\nClara"]

    (document,) = ask(documents=[book], rank_fields=["title", "image"]).documents
    assert isinstance(document, Item)
    assert (document.text, document.image, document.id) == ("A title", "aaaa", 7)


def test_rank_fields_that_a_document_lacks() -> None:
    read = ask(
        documents=[
            {"title": "A title"},
            {"other": "x"},
            {"title": 5},
            {"title": None, "text": "t"},
        ],
        rank_fields=["title", "text"],
    )
    assert texts(read) == ["A title", None, None, "t"]
    assert isinstance(read.documents[1], EmptyItem)

    wrong = read.documents[2]
    assert isinstance(wrong, InvalidRequest)
    assert wrong.sentence() == "documents[2].title must be a string: rank_fields names it."


@pytest.mark.parametrize("absent", [None, []])
def test_without_rank_fields_a_document_has_no_fields_of_its_own(absent: object) -> None:
    (document,) = ask(documents=[{"title": "A title", "text": "x"}], rank_fields=absent).documents
    assert isinstance(document, InvalidRequest)
    assert (
        document.sentence()
        == "documents[0].title is not a known field: rank_fields reads it as text, metadata"
        " carries it."
    )


def test_an_instruction_that_holds_a_picture_is_refused() -> None:
    assert refused(instruction=f"like {PICTURE}").startswith("instruction holds a picture")
