"""What a request is thought to cost before it is computed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from service.contracts import Item
from service.gateway.costs import SUFFIX_TOKENS, TEMPLATE_TOKENS, admission_tokens, pixel_bytes, prefix_tokens, suffix_tokens
from service.gateway.media import Content, Picture, Text
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


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5), st.integers(2, 5_000), st.integers(2, 5_000))
def test_no_pair_is_thought_longer_than_the_model_reads(texts: list[str], width: int, height: int) -> None:
    content: Content = (shown(width, max(height, width // 200 + 1)), *map(Text, texts))
    small = structs.replace(INFO, max_pair_tokens=50)
    assert 0 < suffix_tokens(content, small) <= 50
    assert 0 < prefix_tokens(texts[0], content, small) <= 50


def test_admission_counts_what_is_not_looked_at_yet_as_the_largest() -> None:
    query, documents = Item(text="q" * 400), [Item(text="d" * 40), Item(image="aaaa"), Item(text="t" * 4, image="aaaa")]
    assert admission_tokens(query, documents, INFO) == 4 * TEMPLATE_TOKENS + 100 + 10 + 2 * LARGEST + 1
    assert admission_tokens(Item(text="q" * 10**6), [], INFO) == TEMPLATE_TOKENS + INFO.max_pair_tokens
