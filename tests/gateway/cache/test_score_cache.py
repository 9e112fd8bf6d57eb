"""A score is found again exactly when all that decides it is equal, bit by bit, and never more of
them than fit."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from service.gateway.cache.encoding import pack
from service.gateway.cache.keys import TAG_BYTES, pair_keys
from service.gateway.cache.score_cache import MemoryTier, ScoreCache, entry_bytes
from service.gateway.domain import ScoringContext
from service.gateway.media.content import Content, Picture, Text, framed
from service.wire import ImageRule, Scored
from tests.gateway.stand_in import INFO, scored

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
COUNTS = st.integers(0, 2**32 - 1)


def picture(data: bytes, loc: tuple[str | int, ...] = ("query", "image")) -> Picture:
    return Picture(data, hashlib.sha256(data).digest(), loc, (1, 1))


QUERY: Content = (Text("q"),)


def question(
    digest: str = "d",
    instruction: str = "i",
    query: Content = QUERY,
    *,
    truncate: bool = True,
    salt: str = "",
) -> ScoringContext:
    return ScoringContext(structs.replace(INFO, digest=digest), instruction, query, truncate, salt)


def key(asked: ScoringContext, document: Content, secret: bytes = b"s") -> bytes:
    (made,) = pair_keys(secret, asked, [document])
    return made


SHORT = st.text("ab", max_size=3)
PARTS = st.one_of(SHORT.map(Text), st.binary(max_size=2).map(picture))
CONTENTS = st.lists(PARTS, max_size=3).map(tuple)
Pair = tuple[str, str, str, Content, bool, Content]
PAIRS = st.tuples(SHORT, SHORT, SHORT, CONTENTS, st.booleans(), CONTENTS)


@settings(max_examples=300, deadline=None)
@given(PAIRS, PAIRS)
def test_keys_are_equal_exactly_when_pairs_are(one: Pair, other: Pair) -> None:
    first, second = (
        key(question(digest, words, query, truncate=cut, salt=salt), document)
        for digest, salt, words, query, cut, document in (one, other)
    )
    assert (first == second) == (one == other)


FIELDS = st.lists(st.binary(max_size=3) | st.just(bytes(8)) | st.just(bytes(7) + b"\1"), max_size=5)


@settings(max_examples=500, deadline=None)
@given(FIELDS, FIELDS)
def test_no_two_lists_of_fields_are_framed_alike(one: list[bytes], other: list[bytes]) -> None:
    assert (framed(*one) == framed(*other)) == (one == other)


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=6), st.data())
def test_moving_text_between_scope_and_neighbours_changes_the_key(
    text: str, data: st.DataObject
) -> None:
    cuts = [
        sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=2)))
        for _ in range(2)
    ]
    keys = [key(question(text[:a], text[b:], salt=text[a:b]), (Text("d"),)) for a, b in cuts]

    assert (keys[0] == keys[1]) == (cuts[0] == cuts[1])


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=6), st.data())
def test_moving_a_part_between_query_and_document_changes_the_key(
    parts: list[Text | Picture], data: st.DataObject
) -> None:
    one, other = (data.draw(st.integers(0, len(parts))) for _ in range(2))
    first, second = (
        key(question(query=tuple(parts[:at])), tuple(parts[at:])) for at in (one, other)
    )

    assert (first == second) == (one == other)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=8), st.data())
def test_moving_text_between_any_two_fields_changes_the_key(text: str, data: st.DataObject) -> None:
    cuts = [
        sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=3, max_size=3)))
        for _ in range(2)
    ]
    keys = [
        key(question(text[:a], text[a:b], (Text(text[b:c]),)), (Text(text[c:]),))
        for a, b, c in cuts
    ]

    assert (keys[0] == keys[1]) == (cuts[0] == cuts[1])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_cutting_a_text_into_parts_elsewhere_changes_the_key(
    text: str, one: int, other: int
) -> None:
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
        question(salt="a tenant"),
        replace(
            question(),
            model=structs.replace(question().model, images=ImageRule(28, 3136, 1_003_521)),
        ),
        replace(
            question(),
            model=structs.replace(question().model, images=ImageRule(28, 3137, 1_003_520)),
        ),
        replace(
            question(),
            model=structs.replace(question().model, images=ImageRule(14, 3136, 1_003_520)),
        ),
    ],
)
def test_changing_any_one_thing_changes_the_key(changed: ScoringContext) -> None:
    assert key(changed, (Text("d"),)) != key(question(), (Text("d"),))


def test_another_decoder_of_images_has_other_keys() -> None:
    documents: list[Content] = [(Text("d"),)]
    assert pair_keys(b"s", question(), documents, decoder=b"pillow 0") != pair_keys(
        b"s", question(), documents
    )


def test_what_a_model_is_called_and_where_it_runs_changes_no_key() -> None:
    told = question()
    elsewhere = replace(
        told,
        model=structs.replace(
            told.model, model="other", device="cuda", default_instruction="other"
        ),
    )

    assert key(elsewhere, (Text("d"),)) == key(told, (Text("d"),))


def test_other_documents_change_no_key() -> None:
    one, two, three = ((Text(name),) for name in "abc")
    alone = pair_keys(b"s", question(), [two])

    assert (
        pair_keys(b"s", question(), [one, two, three])[1:2]
        == pair_keys(b"s", question(), [three, two])[1:]
        == alone
    )


@settings(max_examples=50, deadline=None)
@given(PAIRS, PAIRS)
def test_keys_of_one_question_lie_together(one: Pair, other: Pair) -> None:
    digest, salt, words, query, cut, document = one
    asked = question(digest, words, query, truncate=cut, salt=salt)

    assert len({made[:TAG_BYTES] for made in pair_keys(b"s", asked, [document, other[-1]])}) == 1


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
    assert key(asked, (picture(b"d", ("documents", 0, "image")),)) == key(
        asked, (picture(b"d", ("documents", 7, "image")),)
    )


@settings(max_examples=200, deadline=None)
@given(FLOATS, COUNTS, COUNTS, st.booleans())
async def test_a_score_survives_bit_by_bit(
    logit: float, tokens: int, image_tokens: int, truncated: bool
) -> None:
    score = Scored(logit, tokens, image_tokens, truncated)
    cache = ScoreCache([MemoryTier(10_000)])
    await cache.set_many({b"key": score})
    found = (await cache.get_many([b"key"]))[b"key"]

    assert found == score
    assert struct.pack("<f", found.logit) == struct.pack("<f", logit)
    assert type(found.truncated) is bool


async def test_a_later_tier_fills_the_earlier_one_with_what_it_lacked() -> None:
    near, far = MemoryTier(10_000), MemoryTier(10_000)
    await ScoreCache([near]).set_many({b"a": scored(1)})
    await ScoreCache([far]).set_many({b"a": scored(-1), b"b": scored(2), b"c": scored(3)})
    both = await ScoreCache([near, far]).get_many([b"a", b"b", b"nowhere"])

    assert both == {b"a": scored(1), b"b": scored(2)}
    assert await ScoreCache([near]).get_many([b"a", b"b", b"c", b"nowhere"]) == {
        b"a": scored(1),
        b"b": scored(2),
    }


async def test_scores_are_written_to_every_tier() -> None:
    tiers = [MemoryTier(10_000), MemoryTier(10_000)]
    await ScoreCache(tiers).set_many({b"a": scored(1)})
    for tier in tiers:
        assert await ScoreCache([tier]).get_many([b"a", b"a"]) == {b"a": scored(1)}


async def test_a_tier_is_asked_only_for_what_the_earlier_ones_lack() -> None:
    far = Slow()
    near = MemoryTier(10_000)
    await near.set_many({b"a": scored(1)})
    far.go.set()

    assert await ScoreCache([near, far]).get_many([b"a", b"b", b"a"]) == {b"a": scored(1)}
    assert await ScoreCache([near, far]).get_many([b"a"]) == {b"a": scored(1)}
    assert far.asked == [[b"b"]]


async def test_what_is_scored_while_a_far_tier_is_asked_is_found() -> None:
    near, far = MemoryTier(10_000), Slow()
    looking = asyncio.create_task(ScoreCache([near, far]).get_many([b"a", b"b"]))
    await far.started.wait()
    await near.set_many({b"b": scored(2)})
    far.go.set()

    assert await looking == {b"b": scored(2)}


class Slow:
    """A tier without scores that replies once `go` is set."""

    name = "slow"

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.started, self.go = asyncio.Event(), asyncio.Event()

    async def get_many(self, keys: Sequence[bytes]) -> list[Scored | None]:
        self.asked.append(list(keys))
        self.started.set()
        await self.go.wait()
        return [None] * len(keys)

    async def set_many(self, scores: Mapping[bytes, Scored]) -> None:
        """Store nothing."""


OPERATIONS = st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60)
ROOM = 3


@settings(max_examples=150, deadline=None)
@given(OPERATIONS)
async def test_what_stays_is_what_was_used_last(operations: list[tuple[bool, int]]) -> None:
    tier = MemoryTier(ROOM * entry_bytes(b"k", pack(scored(0))))
    used: OrderedDict[bytes, float] = OrderedDict()
    for turn, (is_write, number) in enumerate(operations):
        name = bytes([number])
        if is_write:
            await tier.set_many({name: scored(turn)})
            used[name] = turn
            used.move_to_end(name)
        elif (await tier.get_many([name]))[0] is not None:
            used.move_to_end(name)

        while len(used) > ROOM:
            used.popitem(last=False)

    names = [bytes([number]) for number in range(8)]
    found = dict(zip(names, await tier.get_many(names), strict=True))

    assert {name: score.logit for name, score in found.items() if score} == used


async def test_writing_one_key_again_and_again_takes_no_room_from_others() -> None:
    tier = MemoryTier(ROOM * entry_bytes(b"k", pack(scored(0))))
    await tier.set_many({b"o": scored(7)})
    for turn in range(50):
        await tier.set_many({b"s": scored(turn)})

    assert await tier.get_many([b"o", b"s"]) == [scored(7), scored(49)]


async def test_a_tier_without_room_keeps_nothing() -> None:
    tier = MemoryTier(0)
    await tier.set_many({b"key": scored(1)})

    assert await tier.get_many([b"key"]) == [None]


async def test_an_entry_takes_about_what_it_is_said_to_take() -> None:
    tier = MemoryTier(2**30)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await tier.set_many(
            {
                b"%036d" % number: Scored(number / 7, 1000, 500, truncated=False)
                for number in range(20_000)
            }
        )
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert 0.6 < taken / (20_000 * entry_bytes(bytes(36), bytes(13))) < 1.4
