"""The service's own dialect: what a body is read into, and what is refused, and where."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BY_CODE, BadRequest, EmptyItem, InvalidRequest
from service.gateway.dialects import native
from service.gateway.domain import RerankQuery
from service.items import Item, ItemPart
from service.limits import Limits

LIMITS = Limits(max_documents=5, max_text_chars=50)


def ask(**fields: Any) -> RerankQuery:
    return native.read({"query": "q", "documents": ["d"], **fields}, LIMITS)


def refusal(**fields: Any) -> tuple[str, list[tuple[str | int, ...]]]:
    """The code of the error that a body is refused with, and its locations."""
    with pytest.raises(BadRequest) as caught:
        ask(**fields)

    assert all(problem.message for problem in caught.value.problems)
    return caught.value.code, [problem.loc for problem in caught.value.problems]


def test_a_query_and_documents_are_enough() -> None:
    assert ask() == RerankQuery(query=Item(text="q"), documents=[Item(text="d")])


def test_every_field_is_read() -> None:
    read = ask(
        model="gmr-tiny",
        query={"text": "a red circle", "image": "aaaa"},
        documents=["plain", {"id": "p7", "text": "caption", "image": "bbbb"}],
        instruction="find",
        top_n=10,
        return_documents=True,
        min_score=0.25,
        truncate="none",
        on_error="skip",
        timeout_ms=800,
        cache="refresh",
    )
    assert read == RerankQuery(
        query=Item(text="a red circle", image="aaaa"),
        documents=[Item(text="plain"), Item(id="p7", text="caption", image="bbbb")],
        model="gmr-tiny",
        instruction="find",
        top_n=10,
        min_score=0.25,
        return_documents=True,
        truncate=False,
        skip_errors=True,
        timeout_ms=800,
        cache="refresh",
    )


@pytest.mark.parametrize(
    "item",
    ["alone", {"text": "alone"}, {"content": [{"type": "text", "text": "alone"}], "id": "x"}],
)
def test_a_bare_item_is_a_list_of_one(item: object) -> None:
    (document,) = ask(documents=item).documents
    assert isinstance(document, Item)
    assert document.texts() == ["alone"]


def test_nulls_are_as_good_as_absent() -> None:
    names = (
        "model",
        "instruction",
        "top_n",
        "return_documents",
        "min_score",
        "truncate",
        "on_error",
        "timeout_ms",
        "cache",
    )
    assert ask(**dict.fromkeys(names)) == ask()
    nulls = {"text": "d", "image": None, "content": None, "id": None}
    assert ask(documents=[nulls], query=nulls | {"text": "q"}) == ask()


def test_other_vendors_fields_are_ignored() -> None:
    harmless = {
        "max_chunks_per_doc": 3,
        "overlap_tokens": 80,
        "rank_fields": ["text"],
        "raw_scores": False,
        "user": "someone",
        "max_tokens_per_doc": None,
        "priority": 0,
        "relevant_spans": {"mode": "enabled"},
    }
    assert ask(**harmless) == ask()


@pytest.mark.parametrize(
    "name", ["cache_salt", "mm_processor_kwargs", "chat_template", "chat_template_kwargs", "uuid"]
)
def test_fields_that_steer_the_engine_are_refused(name: str) -> None:
    assert refusal(**{name: "x"}) == ("invalid_request", [(name,)])


@pytest.mark.parametrize(
    ("sent", "meant"), [("true", True), ("false", False), (True, True), (False, False)]
)
def test_booleans_may_come_as_strings(sent: object, meant: bool) -> None:
    assert ask(return_documents=sent).return_documents is meant


def test_parts_keep_their_order() -> None:
    one, two = {"type": "text", "text": "one"}, {"type": "text", "text": "two"}
    url = "data:image/png;base64,aaaa"
    image = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}

    query = ask(query={"content": [one, image, two, image]}).query

    assert query.parts() == [
        ItemPart(("content", 0, "text"), text="one"),
        ItemPart(("content", 1, "image_url", "url"), image=url),
        ItemPart(("content", 2, "text"), text="two"),
        ItemPart(("content", 3, "image_url", "url"), image=url),
    ]
    assert query.texts() == ["one", "two"]
    assert query.images() == [url, url]


def test_the_image_of_a_document_comes_before_its_text() -> None:
    assert Item(text="caption", image="aaaa").parts() == [
        ItemPart(("image",), image="aaaa"),
        ItemPart(("text",), text="caption"),
    ]


def test_an_image_with_an_empty_text_is_an_item() -> None:
    (document,) = ask(documents=[{"text": "", "image": "aaaa"}]).documents
    assert isinstance(document, Item)


@pytest.mark.parametrize(
    "item", ["", {}, {"text": ""}, {"id": "7"}, {"text": "", "image": ""}, {"content": []}]
)
def test_an_item_with_nothing_in_it_is_empty(item: object) -> None:
    assert refusal(query=item) == ("empty_item", [("query",)])
    assert isinstance(ask(documents=["good", item]).documents[1], EmptyItem)


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"query": None}, ("query",)),
        ({"query": 5}, ("query",)),
        ({"query": ["q"]}, ("query", "content", 0)),
        ({"query": {"text": 5}}, ("query", "text")),
        ({"query": {"text": "q", "url": "x"}}, ("query", "url")),
        (
            {"query": {"content": [{"type": "text", "text": "q"}, {"type": "text"}]}},
            ("query", "content", 1),
        ),
        ({"query": {"content": [{"type": "video"}]}}, ("query", "content", 0, "type")),
        (
            {"query": {"content": [{"type": "text", "text": "q", "uuid": "u"}]}},
            ("query", "content", 0, "uuid"),
        ),
        (
            {"query": {"content": [{"type": "image_url", "image_url": {}}]}},
            ("query", "content", 0, "image_url", "url"),
        ),
        ({"query": {"content": [{"type": "text", "text": "q"}], "text": "q"}}, ("query",)),
        ({"documents": None}, ("documents",)),
        ({"documents": []}, ("documents",)),
        ({"documents": ["d"] * 6}, ("documents",)),
        ({"model": 5}, ("model",)),
        ({"instruction": ["find"]}, ("instruction",)),
        ({"instruction": "x" * 51}, ("instruction",)),
        ({"return_documents": "maybe"}, ("return_documents",)),
        ({"truncate": "middle"}, ("truncate",)),
        ({"on_error": "ignore"}, ("on_error",)),
        ({"cache": True}, ("cache",)),
    ],
)
def test_what_is_wrong_is_named_by_its_place(
    fields: dict[str, Any], loc: tuple[str | int, ...]
) -> None:
    assert refusal(**fields) == ("invalid_request", [loc])


def test_all_wrong_fields_are_named() -> None:
    assert refusal(top_n=-1, cache="never") == ("invalid_request", [("top_n",), ("cache",)])


@pytest.mark.parametrize(
    ("field", "bad", "good"),
    [
        ("top_n", [-1, 1.5, "many", math.inf, 10**400, 1_000_001], [1, 1000]),
        ("timeout_ms", [0, -5, 60_001, 2.5, math.nan], [1, 60_000]),
        ("min_score", [-0.01, 1.01, math.nan, math.inf, "high"], [0, 0.5, 1]),
    ],
)
def test_numbers_have_bounds(field: str, bad: list[object], good: list[float]) -> None:
    for value in bad:
        assert refusal(**{field: value}) == ("invalid_request", [(field,)])
    for value in good:
        assert getattr(ask(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("document", "kind", "loc"),
    [
        (5, InvalidRequest, ()),
        (None, InvalidRequest, ()),
        ({"text": "x", "title": "y"}, InvalidRequest, ("title",)),
        ({"image": 5}, InvalidRequest, ("image",)),
        ({"text": "x", "id": 7.5}, InvalidRequest, ("id",)),
        ({"text": "x", "id": True}, InvalidRequest, ("id",)),
        ({"text": "x", "metadata": ["m"]}, InvalidRequest, ("metadata",)),
        ({"content": [{"type": "image_url", "text": "x"}]}, InvalidRequest, ("content", 0)),
        ({}, EmptyItem, ()),
    ],
)
def test_a_bad_document_stands_as_its_error(
    document: object, kind: type[BadRequest], loc: tuple[str | int, ...]
) -> None:
    good, bad = ask(documents=["good", document]).documents
    assert good == Item(text="good")
    assert type(bad) is kind
    assert [problem.loc for problem in bad.problems] == [("documents", 1, *loc)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=60),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
names = st.sampled_from([*RerankQuery.__dataclass_fields__, "on_error"]) | st.text(max_size=8)


def read_or_refused(body: dict[str, Any]) -> RerankQuery | BadRequest:
    try:
        return native.read(body, LIMITS)
    except BadRequest as error:
        return error


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, values, max_size=6), st.text(min_size=20, max_size=40))
def test_any_body_is_read_or_refused_without_repeating_it(
    body: dict[str, Any], secret: str
) -> None:
    for sent in (body, body | {"query": secret, "documents": [secret]}, body | {"cache": secret}):
        outcome = read_or_refused(sent)
        if isinstance(outcome, RerankQuery):
            assert 1 <= len(outcome.documents) <= LIMITS.max_documents
        else:
            assert BY_CODE[outcome.code] is type(outcome)
            told = [outcome.sentence(), [problem.sentence() for problem in outcome.problems]]
            assert secret not in str(told)
