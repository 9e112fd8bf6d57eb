"""The estimated cost of a request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.gateway.costs import (
    BYTES_PER_TOKEN,
    DECODED_PIXELS_PER_TOKEN,
    MAX_BYTES_PER_PAIR_TOKEN,
    SUFFIX_TOKENS,
    TEMPLATE_TOKENS,
    TOKENIZED_BYTES_PER_TOKEN,
    UNKNOWN_IMAGE_PIXELS,
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
from service.items import Item
from service.limits import Limits
from tests.gateway.encoded_pictures import bare, encode, picture
from tests.gateway.stand_in import INFO

assert INFO.images is not None
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
def test_no_pair_is_estimated_longer_than_the_model_reads(
    texts: list[str], width: int, height: int
) -> None:
    content: Content = (shown(width, max(height, width // 200 + 1)), *map(Text, texts))
    small = structs.replace(INFO, max_pair_tokens=50)
    assert 0 < suffix_tokens(content, small) <= 50
    assert 0 < prefix_tokens(texts[0], content, small) <= 50


def test_admission_counts_an_image_without_a_header_as_a_large_one() -> None:
    unknown = LARGEST + UNKNOWN_IMAGE_PIXELS // DECODED_PIXELS_PER_TOKEN
    query = Item(text="q" * 400)
    documents = [Item(text="d" * 40), Item(image="aaaa"), Item(text="t" * 4, image="aaaa")]
    texts = 100 + 400 // TOKENIZED_BYTES_PER_TOKEN + 10 + 1 + 1

    expected = TEMPLATE_TOKENS + 3 * SUFFIX_TOKENS + texts + 2 * unknown
    assert admission_cost("", query, documents, INFO) == expected


def text_cost(text: str) -> int:
    return document_cost((Text(text),), INFO)


def test_a_long_text_costs_the_part_that_may_be_read() -> None:
    """Three hundred texts that are truncated anyway take long to tokenize, in any script."""
    fits, cut, longer = (text_cost("word " * size) for size in (2_500, 19_000, 10**6))
    assert fits == SUFFIX_TOKENS + 12_500 // BYTES_PER_TOKEN + 12_500 // TOKENIZED_BYTES_PER_TOKEN

    read = INFO.max_pair_tokens * MAX_BYTES_PER_PAIR_TOKEN // TOKENIZED_BYTES_PER_TOKEN
    assert cut == longer == SUFFIX_TOKENS + INFO.max_pair_tokens + read
    assert 300 * cut > 10**6, "three hundred of them take turns for about a thousand slices"
    assert text_cost("\u6f22" * 100) == text_cost("x" * 300)


def test_a_picture_costs_its_pixels_however_few_bytes_it_has() -> None:
    small, bomb = (document_cost((shown(side, side),), INFO) for side in (1_000, 4_000))
    assert bomb - small >= 15_000_000 // DECODED_PIXELS_PER_TOKEN - 1

    many_scans = Picture(b"", b"", (), (1_000, 1_000), passes=10)
    nine_more = 9 * 1_000_000 // DECODED_PIXELS_PER_TOKEN
    assert document_cost((many_scans,), INFO) - small in (nine_more, nine_more + 1)


SEEN = bare(encode(picture((300, 200))))


@given(
    st.text(max_size=50),
    st.lists(st.one_of(st.text(min_size=1, max_size=500), st.just(SEEN)), min_size=1, max_size=6),
)
def test_a_request_costs_what_its_query_and_documents_cost(
    instruction: str, sources: list[str]
) -> None:
    """So a small request needs no turn besides the one that it was admitted with."""
    query_item = Item(text="q")
    items = [Item(image=source) if source == SEEN else Item(text=source) for source in sources]

    media = Media(Limits(), Decoders())
    costs = query_cost(instruction, media.resolve(query_item, ()), INFO)
    for item in items:
        costs += document_cost(media.resolve(item, ()), INFO)

    assert admission_cost(instruction, query_item, items, INFO) == costs


def test_a_score_that_is_written_costs_its_bound() -> None:
    model = structs.replace(INFO, max_completion_tokens=2048)
    documents = [Item(text="d" * 40)] * 3
    read = admission_cost("i", Item(text="q"), documents, INFO)
    assert admission_cost("i", Item(text="q"), documents, model) == read + 3 * 2048

    content: Content = (Text("y" * 80),)
    assert document_cost(content, model) == document_cost(content, INFO) + 2048
    assert suffix_tokens(content, model) == suffix_tokens(content, INFO) + 2048
