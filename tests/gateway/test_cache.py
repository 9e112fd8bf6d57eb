"""A score is found again exactly when all that decides it is equal, bit by bit, and never more of them than fit."""

from __future__ import annotations

import hashlib
import math
import struct
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from service.contracts import Scored
from service.gateway.cache import MemoryTier, ScoreCache, pair_keys
from service.gateway.media import Content, Picture, Text
from service.gateway.scoring import Question
from tests.gateway.stand_in import INFO, scored

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**32 - 1)


def picture(data: bytes, loc: tuple[str | int, ...] = ("query", "image")) -> Picture:
    return Picture(data, hashlib.sha256(data).digest(), loc, (1, 1))


QUERY: Content = (Text("q"),)


def question(digest: str = "d", instruction: str = "i", query: Content = QUERY, *, truncate: bool = True) -> Question:
    return Question(structs.replace(INFO, digest=digest), instruction, query, truncate)


def key(asked: Question, document: Content, secret: bytes = b"s") -> bytes:
    (made,) = pair_keys(secret, asked, [document])
    return made


SHORT = st.text("ab", max_size=3)
PARTS = st.one_of(SHORT.map(Text), st.binary(max_size=2).map(picture))
CONTENTS = st.lists(PARTS, max_size=3).map(tuple)
PAIRS = st.tuples(SHORT, SHORT, CONTENTS, st.booleans(), CONTENTS)


@settings(max_examples=300, deadline=None)
@given(PAIRS, PAIRS)
def test_keys_are_equal_exactly_when_pairs_are(
    one: tuple[str, str, Content, bool, Content], other: tuple[str, str, Content, bool, Content]
) -> None:
    first, second = (
        key(question(digest, words, query, truncate=cut), document) for digest, words, query, cut, document in (one, other)
    )
    assert (first == second) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=6), st.data())
def test_moving_a_part_between_query_and_document_changes_the_key(parts: list[Text | Picture], data: st.DataObject) -> None:
    one, other = (data.draw(st.integers(0, len(parts))) for _ in range(2))
    first, second = (key(question(query=tuple(parts[:at])), tuple(parts[at:])) for at in (one, other))
    assert (first == second) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=8), st.data())
def test_moving_text_between_any_two_fields_changes_the_key(text: str, data: st.DataObject) -> None:
    cuts = [sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=3, max_size=3))) for _ in range(2)]
    keys = [key(question(text[:a], text[a:b], (Text(text[b:c]),)), (Text(text[c:]),)) for a, b, c in cuts]
    assert (keys[0] == keys[1]) == (cuts[0] == cuts[1])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_cutting_a_text_into_parts_elsewhere_changes_the_key(text: str, one: int, other: int) -> None:
    first, second = ((Text(text[:at]), Text(text[at:])) for at in (one, other))
    assert (key(question(), first) == key(question(), second)) == (first == second)


def test_a_text_that_spells_a_picture_is_not_that_picture() -> None:
    image = picture(b"data")
    for text in (image.data, image.digest, b"i" + image.digest):
        assert key(question(), (Text(text.decode("latin-1")),)) != key(question(), (image,))


@pytest.mark.parametrize(
    "changed",
    [
        question(digest="e"),
        question(instruction="j"),
        question(query=(Text("r"),)),
        question(query=(picture(b"q"),)),
        question(truncate=False),
    ],
)
def test_changing_any_one_thing_changes_the_key(changed: Question) -> None:
    assert key(changed, (Text("d"),)) != key(question(), (Text("d"),))


def test_documents_and_secrets_have_keys_of_their_own() -> None:
    documents: list[Content] = [
        (Text("d"),),
        (Text("e"),),
        (picture(b"d"),),
        (Text("d"), picture(b"d")),
        (picture(b"d"), Text("d")),
    ]
    keys = pair_keys(b"s", question(), documents) + pair_keys(b"t", question(), documents)
    assert len(set(keys)) == 2 * len(documents)


def test_where_a_picture_stood_does_not_change_its_key() -> None:
    asked = question()
    assert key(asked, (picture(b"d", ("documents", 0, "image")),)) == key(asked, (picture(b"d", ("documents", 7, "image")),))


@settings(max_examples=200, deadline=None)
@given(FLOATS, COUNTS, COUNTS, st.booleans())
async def test_a_score_survives_bit_by_bit(logit: float, tokens: int, image_tokens: int, truncated: bool) -> None:
    score = Scored(logit, tokens, image_tokens, truncated)
    cache = ScoreCache([MemoryTier(10_000)])
    await cache.set_many({b"key": score})
    found = (await cache.get_many([b"key"]))[b"key"]
    assert found == score
    assert struct.pack("<f", found.logit) == struct.pack("<f", logit)
    assert type(found.truncated) is bool


async def written(logit: float) -> bytes:
    tier = MemoryTier(10_000)
    await ScoreCache([tier]).set_many({b"key": scored(logit)})
    (value,) = await tier.get_many([b"key"])
    assert value
    return value


async def unreadable() -> list[bytes]:
    good = await written(1.5)
    return [b"", b"x", good[:-1], good + b"\0", *[await written(bad) for bad in (math.nan, math.inf, -math.inf)]]


async def test_values_that_cannot_be_read_are_misses() -> None:
    for value in await unreadable():
        tier = MemoryTier(10_000)
        await tier.set_many({b"key": value, b"other": await written(2.5)})
        assert await ScoreCache([tier]).get_many([b"key", b"other"]) == {b"other": scored(2.5)}


async def test_an_unreadable_value_is_replaced_from_a_later_tier() -> None:
    for value in await unreadable():
        near, far = MemoryTier(10_000), MemoryTier(10_000)
        await near.set_many({b"key": value})
        await ScoreCache([far]).set_many({b"key": scored(2.5)})
        assert await ScoreCache([near, far]).get_many([b"key"]) == {b"key": scored(2.5)}
        assert await ScoreCache([near]).get_many([b"key"]) == {b"key": scored(2.5)}


async def test_a_later_tier_fills_the_earlier_one_with_what_it_lacked() -> None:
    near, far = MemoryTier(10_000), MemoryTier(10_000)
    await ScoreCache([near]).set_many({b"a": scored(1)})
    await ScoreCache([far]).set_many({b"a": scored(-1), b"b": scored(2), b"c": scored(3)})
    both = await ScoreCache([near, far]).get_many([b"a", b"b", b"nowhere"])
    assert both == {b"a": scored(1), b"b": scored(2)}
    assert await ScoreCache([near]).get_many([b"a", b"b", b"c", b"nowhere"]) == {b"a": scored(1), b"b": scored(2)}


async def test_scores_are_written_to_every_tier() -> None:
    tiers = [MemoryTier(10_000), MemoryTier(10_000)]
    await ScoreCache(tiers).set_many({b"a": scored(1)})
    for tier in tiers:
        assert await ScoreCache([tier]).get_many([b"a", b"a"]) == {b"a": scored(1)}


OPERATIONS = st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 900)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
async def test_what_stays_is_what_was_used_last(operations: list[tuple[bool, int, int]]) -> None:
    tier = MemoryTier(2_000)
    used: OrderedDict[bytes, int] = OrderedDict()
    for is_write, number, size in operations:
        name = bytes([number])
        if is_write:
            await tier.set_many({name: bytes(size)})
            used[name] = size
            used.move_to_end(name)
        elif (await tier.get_many([name]))[0] is not None:
            used.move_to_end(name)
    names = list(reversed(used))
    kept = [name for name, value in zip(names, await tier.get_many(names), strict=True) if value is not None]
    assert kept == names[: len(kept)]
    assert sum(used[name] for name in kept) <= 2_000


async def survivors(tier: MemoryTier, entries: int) -> int:
    await tier.set_many({number.to_bytes(4, "big"): b"v" * 13 for number in range(entries)})
    found = await tier.get_many([number.to_bytes(4, "big") for number in range(entries)])
    assert all(value is not None for value in found[entries - len([each for each in found if each]) :])
    return sum(value is not None for value in found)


async def test_writing_one_key_again_and_again_costs_nothing() -> None:
    fresh, worn = MemoryTier(10_000), MemoryTier(10_000)
    for size in range(500):
        await worn.set_many({b"same": bytes(size % 50)})
    assert await survivors(worn, 500) == await survivors(fresh, 500) > 10


async def test_a_large_value_pushes_out_as_many_as_it_needs() -> None:
    tier = MemoryTier(10_000)
    before = await survivors(tier, 500)
    await tier.set_many({b"large": bytes(5_000)})
    after = sum(value is not None for value in await tier.get_many([n.to_bytes(4, "big") for n in range(500)]))
    assert 0 < after <= before / 2


async def test_what_does_not_fit_is_not_kept() -> None:
    for tier, size in ((MemoryTier(0), 0), (MemoryTier(1_000), 1_001)):
        await tier.set_many({b"key": bytes(size)})
        assert await tier.get_many([b"key"]) == [None]
