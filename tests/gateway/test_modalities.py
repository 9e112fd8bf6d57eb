"""Parts that a model does not read are refused with their place, or skipped, before any fetch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.errors import InvalidRequest
from service.gateway.domain import RerankQuery
from service.gateway.modalities import expect_readable
from service.items import Item
from service.wire import SideRule, WorkerInfo
from tests.gateway.stand_in import INFO

TEXT = Item(text="a")
IMAGE = Item(image="data:,")
FUSED = Item(text="a", image="data:,")
TWO_IMAGES = Item.validated(
    [{"type": "image_url", "image_url": {"url": f"data:,{number}"}} for number in range(2)]
)
TEXT_ONLY = structs.replace(INFO, images=None)


def model(**changes: Any) -> WorkerInfo:
    return structs.replace(INFO, **changes)


def query_of(
    query: Item | list[Item] = TEXT, documents: list[Item] | None = None, **more: Any
) -> RerankQuery:
    return RerankQuery(query, [TEXT] if documents is None else documents, **more)


def refusal(query: RerankQuery, served: WorkerInfo) -> str:
    with pytest.raises(InvalidRequest) as refused:
        expect_readable(query, served)
    return refused.value.sentence()


one_image = SideRule(max_images=1)


@pytest.mark.parametrize(
    ("served", "query", "sentence"),
    [
        (
            model(takes_instruction=False),
            query_of(instruction="find it"),
            "instruction: the model m has no place for an instruction: send the request without"
            " it.",
        ),
        (
            TEXT_ONLY,
            query_of(IMAGE),
            "query: the model m reads text only, and this item has an image.",
        ),
        (
            TEXT_ONLY,
            query_of(documents=[TEXT, FUSED]),
            "documents[1]: the model m reads text only, and this item has an image.",
        ),
        (
            model(query_side=one_image),
            query_of(TWO_IMAGES),
            "query: the model m reads at most one image in a query, and this item has 2.",
        ),
        (
            model(document_side=one_image),
            query_of(TWO_IMAGES, [IMAGE, FUSED, TWO_IMAGES]),
            "documents[2]: the model m reads at most one image in a document, and this item has 2.",
        ),
        (
            model(query_side=SideRule(max_images=0)),
            query_of(FUSED, [FUSED]),
            "query: the model m reads no image in a query, and this item has 1.",
        ),
        (
            model(document_side=SideRule(texts=False)),
            query_of(documents=[IMAGE, FUSED]),
            "documents[1]: the model m reads images only as a document, and this item has a text.",
        ),
        (
            model(document_side=SideRule(mixed=False)),
            query_of(documents=[IMAGE, TEXT, FUSED]),
            "documents[2]: the model m reads a text or an image as a document, and this item has"
            " both.",
        ),
        (
            model(query_side=SideRule(max_images=0)),
            query_of([TEXT, IMAGE], [TEXT, TEXT]),
            "queries[1]: the model m reads no image in a query, and this item has 1.",
        ),
    ],
)
def test_a_refusal_names_place_and_model(
    served: WorkerInfo, query: RerankQuery, sentence: str
) -> None:
    assert refusal(query, served) == sentence


@pytest.mark.parametrize("instruction", [None, ""])
def test_no_instruction_is_none(instruction: str | None) -> None:
    query = query_of(instruction=instruction)
    assert expect_readable(query, model(takes_instruction=False)) is query


def test_a_document_can_be_skipped_and_a_query_cannot() -> None:
    served = model(query_side=one_image, document_side=one_image)
    query = query_of(documents=[TEXT, TWO_IMAGES, FUSED], skip_errors=True)
    first, second, third = expect_readable(query, served).documents

    assert (first, third) == (TEXT, FUSED)
    assert isinstance(second, InvalidRequest)
    assert "query: the model m" in refusal(replace(query, query=TWO_IMAGES), served)


def test_a_query_of_its_own_is_skipped_with_its_document() -> None:
    served = model(query_side=one_image)
    query = query_of([TEXT, TWO_IMAGES], [FUSED, TEXT], skip_errors=True)
    first, second = expect_readable(query, served).documents
    assert first == FUSED
    assert isinstance(second, InvalidRequest)


items = st.sampled_from([TEXT, IMAGE, FUSED, TWO_IMAGES])
rules = st.builds(SideRule, st.booleans(), st.none() | st.integers(0, 2), st.booleans())


@given(query=items, documents=st.lists(items, max_size=4), one=rules, other=rules)
def test_all_that_passes_is_read_and_the_rest_keeps_its_place(
    query: Item, documents: list[Item], one: SideRule, other: SideRule
) -> None:
    served = model(query_side=one, document_side=other)
    asked = query_of(query, documents, skip_errors=True)
    if not reads(one, query):
        refusal(asked, served)
        return

    found = expect_readable(asked, served).documents
    assert [isinstance(each, Item) for each in found] == [reads(other, each) for each in documents]


def reads(rule: SideRule, item: Item) -> bool:
    few = rule.max_images is None or len(item.images()) <= rule.max_images
    both = bool(item.texts() and item.images())
    return few and (rule.texts or not item.texts()) and (rule.mixed or not both)
