"""A Redis that sends wrong replies: none of them becomes a score, and none becomes an error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from service.gateway.cache.encoding import ScoreCodec
from tests.gateway.redis_tiers import SECRET, Since, key_of, pretender, score_of, tier_on

NAMES = ["a", "b", "c", "d"]
Lie = Callable[[list[bytes]], bytes]


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


def array(values: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(values)


def liar(lie: Lie) -> AbstractAsyncContextManager[tuple[str, list[list[bytes]]]]:
    """A server that answers each MGET with what `lie` makes of the right values."""
    codec = ScoreCodec(SECRET)
    truth = [bulk(codec.encode(key_of(name), score_of(name), 0)) for name in NAMES]
    return pretender(lambda words: lie(truth))


async def told(lie: Lie) -> list[object]:
    async with liar(lie) as (where, _), tier_on(f"redis://{where}", budget_seconds=0.5) as tier:
        return list(await tier.get_many([key_of(name) for name in NAMES]))


async def test_the_truth_is_believed() -> None:
    assert await told(array) == [score_of(name) for name in NAMES]


SWAPS: dict[str, Lie] = {
    "values stand for other keys": lambda truth: array(truth[1:] + truth[:1]),
    "one value for all": lambda truth: array(truth[:1] * 4),
    "two are swapped": lambda truth: array([truth[1], truth[0], *truth[2:]]),
}


@pytest.mark.parametrize("lie", SWAPS.values(), ids=SWAPS)
async def test_values_of_other_keys_are_not_believed(lie: Lie) -> None:
    for name, found in zip(NAMES, await told(lie), strict=True):
        assert found in (None, score_of(name))


NONSENSE: dict[str, Lie] = {
    "too few": lambda truth: array(truth[:3]),
    "too many": lambda truth: array(truth * 2),
    "none": lambda truth: array([]),
    "one string": lambda truth: truth[0],
    "nothing": lambda truth: b"*-1\r\n",
    "a number": lambda truth: b":4\r\n",
    "an error": lambda truth: b"-ERR hunter2 /etc 0x7f00deadbeef\r\n",
    "an unknown error": lambda truth: b"-\r\n",
    "no protocol": lambda truth: b"HTTP/1.1 200 OK\r\n\r\n",
    "no end": lambda truth: array(truth)[:-9],
    "an absurd size": lambda truth: b"*4\r\n$99999999999999\r\nx",
    "a negative size": lambda truth: b"*4\r\n$-7\r\n",
    "not a size": lambda truth: b"*x\r\n",
}


@pytest.mark.parametrize("lie", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_is_a_counted_miss(lie: Lie) -> None:
    before = Since()
    assert await told(lie) == [None] * 4
    assert sum(before("get").values()) == 1


async def test_values_of_other_types_are_misses() -> None:
    assert (
        await told(lambda truth: array([b":1\r\n", b"+OK\r\n", array(truth), b"-ERR no\r\n"]))
        == [None] * 4
    )


async def test_a_reply_too_many_is_not_the_next_ones() -> None:
    def twice(truth: list[bytes]) -> bytes:
        return array(truth[1:] + truth[:1]) + array(truth)

    async with liar(twice) as (where, _), tier_on(f"redis://{where}", budget_seconds=0.5) as tier:
        for _ in range(5):
            for name in NAMES:
                (found,) = (await tier.get_many([key_of(name)] * 4))[:1]
                assert found in (None, score_of(name))


async def test_who_hangs_up_is_not_called_again_for_the_same() -> None:
    """The library's own default is ten more times, with pauses: four seconds for one key."""
    async with pretender(lambda words: None) as (where, heard), tier_on(f"redis://{where}") as tier:
        for number in range(1, 4):
            assert await tier.get_many([key_of("a")]) == [None]
            assert len([words for words in heard if words]) == number
