"""A cut keeps what fits, in every script, and reads no more of a text than that takes."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from model_store.families.graphemes import LONGEST_CLUSTER, boundary
from model_store.families.tokens import BYTES_A_TOKEN, MARGIN, LiteralTokenizer
from tests.model_store.families.vocabularies import NAMES, english, prose, serialized, vocabulary

CLUSTER = regex.compile(r"\X")
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
KISS = "\U0001f469\U0001f3ff\u200d\u2764\ufe0f\u200d\U0001f48b\u200d\U0001f468\U0001f3fb"
FLAGS = "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7"

every_character = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
clusters = st.sampled_from(
    [
        FAMILY,
        KISS,
        FLAGS,
        "e\u0301",
        "\u1112\u1161\u11ab",
        "क्षि",
        "กำ",
        "ท\u0e35\u0e48",
        "\U00013000",
        "日",
        "🜁",
        "\r\n",
        "a",
        " ",
    ]
)
long_runs = st.builds(
    lambda text, times: text * times,
    clusters | st.sampled_from(["  ", "\n", "ab"]),
    st.integers(1, 90),
)
written = st.lists(clusters | long_runs | every_character, max_size=12).map("".join)


def cluster_ends(text: str) -> set[int]:
    return {0, *(cluster.end() for cluster in CLUSTER.finditer(text))}


def tokens(tokenizer: LiteralTokenizer, text: str) -> int:
    return len(tokenizer.encode([text])[0])


def expect_a_good_cut(tokenizer: LiteralTokenizer, text: str, limit: int) -> None:
    head = tokenizer.cut(text, limit)
    assert text.startswith(head)
    kept = tokens(tokenizer, head)
    assert kept <= max(limit, 0)

    if head == text:
        return
    rest = text[len(head) :]
    ends = cluster_ends(text)
    if len(head) in ends:
        following = CLUSTER.match(rest)
        assert following
        # The second is for a cut after spaces, which may be one token by themselves and several
        # before a word.
        assert (
            kept + tokens(tokenizer, following.group()) > limit
            or tokens(tokenizer, head + following.group()) > limit
        )
    else:
        assert len(head) - max(end for end in ends if end < len(head)) >= LONGEST_CLUSTER
        assert kept + 2 * tokens(tokenizer, rest[0]) > limit


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=120, deadline=None)
@given(text=written, limit=st.integers(-1, 300))
@example(text=FAMILY * 4, limit=20)
@example(text="e" + "\u0301" * 200, limit=50)
@example(text=FLAGS * 300, limit=301)
def test_a_cut_loses_less_than_one_cluster_and_breaks_none(
    name: str, text: str, limit: int
) -> None:
    expect_a_good_cut(vocabulary(name), text, limit)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(text=written, limit=st.integers(-1, 120))
def test_a_text_is_cut_to_fit_between_its_neighbours(name: str, text: str, limit: int) -> None:
    """The ids are those of the texts joined, and the query's line break after it counts."""
    tokenizer = vocabulary(name)
    before, after = "<Instruct>: find<Query>:", "\n"
    head, ids = tokenizer.fit(before, text, after, limit)
    assert text.startswith(head)
    assert [ids] == tokenizer.encode([before + head + after])

    around = tokens(tokenizer, before + after)
    assert len(ids) <= max(limit, around)
    if head != text and limit > around:
        following = CLUSTER.match(text[len(head) :])
        assert following
        one_more = tokens(tokenizer, before + head + following.group() + after)
        assert one_more > limit or len(ids) + tokens(tokenizer, following.group()) > limit - 1


@pytest.mark.parametrize("name", NAMES)
def test_every_character_of_unicode_is_cut_well(name: str) -> None:
    """Texts of 400 characters each that hold, together, all that Unicode has assigned."""
    tokenizer = vocabulary(name)
    assigned = "".join(
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")
    )
    for start in range(0, len(assigned), 400):
        expect_a_good_cut(tokenizer, assigned[start : start + 400], 250)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "script", ["Chinese", "Japanese", "Korean", "Thai", "Devanagari", "Arabic", "Russian"]
)
def test_a_long_text_of_any_script_fills_the_limit(name: str, script: str) -> None:
    tokenizer = vocabulary(name)
    text = prose(script, 5_000, seed=1)
    for limit in (1_000, 1_001, 1_002, 1_003):
        kept = tokens(tokenizer, tokenizer.cut(text, limit))
        assert limit - 24 < kept <= limit


def cut_by_offsets(name: str, text: str, limit: int) -> str:
    """The service's first rule, right for texts whose characters are at most a token each."""
    tokenizer = vocabulary(name)
    plain = Tokenizer.from_str(serialized(name))
    offsets = plain.encode(text, add_special_tokens=False).offsets
    while limit > 0:
        head = text[: offsets[limit - 1][1]] if limit <= len(offsets) else text
        excess = tokens(tokenizer, head) - limit
        if excess <= 0:
            return head
        limit -= excess

    return ""


@pytest.mark.parametrize("name", NAMES)
def test_english_is_cut_where_it_was_cut(name: str) -> None:
    tokenizer = vocabulary(name)
    for seed in range(3):
        text = english(9_000, seed)
        for limit in (*range(12), 100, 101, 500, 777, 1_000, 1_500, 1_501, 1_502, 1_503):
            assert tokenizer.cut(text, limit) == cut_by_offsets(name, text, limit)


pieces = st.sampled_from(
    [
        english(400, 1),
        english(90, 2),
        prose("Chinese", 300),
        prose("Thai", 200),
        prose("Korean", 60),
        FAMILY,
    ]
)
bulk = st.lists(pieces | long_runs | every_character, min_size=4, max_size=16).map("".join)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(text=bulk, limit=st.integers(0, 120))
@example(text="word " + " " * 3_000 + "\n" + "word", limit=40)
@example(text="x" * 3_000, limit=40)
@example(text="\n" * 1_500 + " " * 1_500, limit=40)
def test_what_is_not_read_changes_nothing(name: str, text: str, limit: int) -> None:
    """The same beginning and the same ids as where all of the text is read."""
    tokenizer = vocabulary(name)
    bounded = tokenizer.fit("<Document>:", text, "\n", limit)
    within = tokenizer.encode_within([text], limit)
    unbounded = LiteralTokenizer(serialized(name), bytes_a_token=2**20)
    assert unbounded.fit("<Document>:", text, "\n", limit) == bounded

    ids = tokenizer.encode([text])
    assert within == (ids if len(ids[0]) <= limit else [None])


class CountingPipeline:
    """A pipeline that counts the characters of the texts that it encodes."""

    def __init__(self, serialized_pipeline: str) -> None:
        self._pipeline = Tokenizer.from_str(serialized_pipeline)
        self.characters = 0

    def encode_batch(self, texts: list[str], **options: bool) -> list[Encoding]:
        self.characters += sum(map(len, texts))
        return self._pipeline.encode_batch(texts, **options)

    encode_batch_fast = encode_batch


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_read_only_as_far_as_it_could_fit(name: str) -> None:
    """Characters that the tokenizer reads of a text that is far too long are bounded."""
    pipelines: list[CountingPipeline] = []

    def parse(serialized_pipeline: str) -> Any:
        pipelines.append(CountingPipeline(serialized_pipeline))
        return pipelines[0]

    tokenizer = LiteralTokenizer(serialized(name), parse=parse)
    (pipeline,) = pipelines
    limit = 800
    most = 2 * BYTES_A_TOKEN * (limit + MARGIN)
    for text in (
        english(95_000),
        prose("Chinese", 95_000),
        "然" * 95_000,
        "🜁" * 95_000,
        "e" + "\u0301" * 95_000,
    ):
        pipeline.characters = 0
        assert tokenizer.encode_within([text], limit) == [None]
        assert pipeline.characters <= most
        pipeline.characters = 0
        tokenizer.cut(text, limit)
        assert pipeline.characters <= 2 * most


def test_a_run_longer_than_any_estimate_is_read_on() -> None:
    """A vocabulary with tokens of 128 spaces: the estimate of characters a token is far off."""
    tokenizer = vocabulary("gmr-tiny")
    text = "highlightbackground InteractiveInterpreter " * 4_000
    kept = tokens(tokenizer, tokenizer.cut(text, 3_000))

    assert kept == 3_000
    assert tokenizer.encode_within([text[:20_000]], 3_000) == tokenizer.encode([text[:20_000]])


@settings(max_examples=300, deadline=None)
@given(text=written, index=st.integers(-2, 900))
def test_a_boundary_is_the_last_end_of_a_cluster(text: str, index: int) -> None:
    found = boundary(text, index)
    wanted = max(end for end in cluster_ends(text) if end <= max(index, 0))
    assert found == wanted or (found == index and index - wanted >= LONGEST_CLUSTER)


def test_flags_are_cut_in_pairs_and_in_time() -> None:
    text = "x" + "\U0001f1e9\U0001f1ea" * 50_000
    assert [boundary(text, index) for index in (99_998, 99_999, 100_000)] == [
        99_997,
        99_999,
        99_999,
    ]
    assert all(boundary("\u0301" * 1_000, index) == index for index in range(100, 1_000))
    assert list(pairwise([boundary(text, 11), boundary(text, 12)])) == [(11, 11)]
