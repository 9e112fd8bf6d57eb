"""The estimated cost of a request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.api import Item
from service.gateway.costs import (
    BYTES_A_TOKEN,
    DECODED_A_TOKEN,
    MOST_READ,
    READ_A_TOKEN,
    SUFFIX_TOKENS,
    TEMPLATE_TOKENS,
    UNSEEN_PIXELS,
    admission_cost,
    document_cost,
    once_and_each,
    pixel_bytes,
    prefix_tokens,
    query_cost,
    suffix_tokens,
)
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.decoders import Decoders
from service.gateway.media.reader import Media
from service.limits import Limits
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.gateway.stand_in import INFO

LARGEST = INFO.images.max_pixels // INFO.images.cell**2


def shown(width: int, height: int) -> Picture:
    return Picture(b"", b"", (), (width, height))


def test_a_pair_costs_its_template_its_text_and_its_cells() -> None:
    assert prefix_tokens("x" * 40, (Text("y" * 80),), INFO) == TEMPLATE_TOKENS + 10 + 20
    assert suffix_tokens((Text("y" * 80),), INFO) == SUFFIX_TOKENS + 20
    assert suffix_tokens((shown(280, 280), Text("y" * 80)), INFO) == SUFFIX_TOKENS + 100 + 20
    assert suffix_tokens((shown(10_000, 1_000),), INFO) <= SUFFIX_TOKENS + LARGEST
    assert pixel_bytes(shown(280, 280), INFO.images) == 3 * 280 * 280


def test_a_query_that_no_prompt_begins_with_costs_with_each_document() -> None:
    query, documents = Item(text="q" * 400), [Item(text="d" * 40)] * 3
    first = admission_cost("i", query, documents, INFO)
    assert once_and_each(100, INFO) == (100, 0)

    for side in ("document", "none"):
        model = structs.replace(INFO, cacheable_side=side)
        assert once_and_each(100, model) == (0, 100)
        whole = admission_cost("i", query, [Item(text="d" * 40)], INFO)
        assert admission_cost("i", query, documents, model) == 3 * whole > first


def test_images_cost_nothing_for_a_model_of_text() -> None:
    """They are refused before anything is decoded."""
    model = structs.replace(INFO, images=None)
    item = Item(image=bare(encode(picture((280, 280)))))
    assert admission_cost("i", Item(text="q"), [item], model) < TEMPLATE_TOKENS + 20


@given(
    st.lists(st.text(max_size=200), min_size=1, max_size=5),
    st.integers(2, 5_000),
    st.integers(2, 5_000),
)
def test_no_pair_is_thought_longer_than_the_model_reads(
    texts: list[str], width: int, height: int
) -> None:
    content: Content = (shown(width, max(height, width // 200 + 1)), *map(Text, texts))
    small = structs.replace(INFO, max_pair_tokens=50)
    assert 0 < suffix_tokens(content, small) <= 50
    assert 0 < prefix_tokens(texts[0], content, small) <= 50


def test_admission_counts_what_is_not_looked_at_yet_as_a_large_one() -> None:
    unseen = LARGEST + UNSEEN_PIXELS // DECODED_A_TOKEN
    query, documents = (
        Item(text="q" * 400),
        [Item(text="d" * 40), Item(image="aaaa"), Item(text="t" * 4, image="aaaa")],
    )
    texts = 100 + 400 // READ_A_TOKEN + 10 + 1 + 1

    assert (
        admission_cost("", query, documents, INFO)
        == TEMPLATE_TOKENS + 3 * SUFFIX_TOKENS + texts + 2 * unseen
    )


def test_a_long_text_costs_what_may_be_read_of_it_and_no_more() -> None:
    """Three hundred texts that are truncated anyway take long to tokenize, in any script."""
    fits, cut, longer = (
        document_cost((Text("word " * size),), INFO) for size in (2_500, 19_000, 10**6)
    )
    assert fits == SUFFIX_TOKENS + 12_500 // BYTES_A_TOKEN + 12_500 // READ_A_TOKEN
    assert (
        cut
        == longer
        == SUFFIX_TOKENS + INFO.max_pair_tokens + INFO.max_pair_tokens * MOST_READ // READ_A_TOKEN
    )
    assert 300 * cut > 10**6, "three hundred of them take turns for about a thousand slices"
    assert document_cost((Text("\u6f22" * 100),), INFO) == document_cost((Text("x" * 300),), INFO)


def test_a_picture_costs_its_pixels_however_few_bytes_it_has() -> None:
    small, bomb = (document_cost((shown(side, side),), INFO) for side in (1_000, 4_000))
    assert bomb - small >= 15_000_000 // DECODED_A_TOKEN - 1
    many_scans = Picture(b"", b"", (), (1_000, 1_000), passes=10)
    assert document_cost((many_scans,), INFO) - small == 9 * 1_000_000 // DECODED_A_TOKEN + (
        1_000_000 % DECODED_A_TOKEN > 0
    )


SEEN = bare(encode(picture((300, 200))))


@given(
    st.text(max_size=50),
    st.lists(st.one_of(st.text(min_size=1, max_size=500), st.just(SEEN)), min_size=1, max_size=6),
)
def test_a_request_costs_what_its_query_and_documents_cost(
    instruction: str, sources: list[str]
) -> None:
    """So that a small request needs no other turn than the one that it was admitted with."""
    items = [Item(image=each) if each == SEEN else Item(text=each) for each in ("q", *sources)]
    query, *documents = (Media(Limits(), Decoders()).resolve(item, ()) for item in items)
    costs = query_cost(instruction, query, INFO) + sum(
        document_cost(each, INFO) for each in documents
    )

    assert admission_cost(instruction, items[0], items[1:], INFO) == costs
