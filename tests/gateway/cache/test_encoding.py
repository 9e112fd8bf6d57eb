"""An encoded score decodes under its own key and secret, bit by bit; any other value is rejected
with a reason."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.cache.encoding import ENCODED_BYTES, SCHEMA, ScoreCodec, pack, unpack
from service.wire import Scored

CODEC = ScoreCodec(b"secret")
KEYS = st.binary(min_size=36, max_size=36)
KEY = bytes(36)
COUNTS = st.integers(0, 2**32 - 1)
SCORES = st.builds(
    lambda logit, counts, truncated: Scored(logit, max(counts), min(counts), truncated),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.tuples(COUNTS, COUNTS),
    st.booleans(),
)
TIMES = st.floats(-1e18, 1e18)


@settings(max_examples=200, deadline=None)
@given(KEYS, SCORES, TIMES)
def test_what_is_encoded_is_decoded_bit_by_bit(
    key: bytes, score: Scored, written_at: float
) -> None:
    value = CODEC.encode(key, score, written_at)
    found = ScoreCodec(b"secret").decode(key, value)

    assert len(value) == ENCODED_BYTES
    assert found == score == unpack(pack(score))
    assert isinstance(found, Scored)
    assert struct.pack("<f", found.logit) == struct.pack("<f", score.logit)
    assert type(found.truncated) is bool


@settings(max_examples=300, deadline=None)
@given(SCORES, st.integers(0, ENCODED_BYTES * 8 - 1))
def test_one_flipped_bit_is_seen(score: Scored, bit: int) -> None:
    value = bytearray(CODEC.encode(KEY, score, 1e9))
    value[bit // 8] ^= 1 << bit % 8

    assert CODEC.decode(KEY, bytes(value)) == ("schema" if bit < 8 else "mac")


@settings(max_examples=200, deadline=None)
@given(KEYS, KEYS, SCORES)
def test_a_value_stands_for_no_other_key(one: bytes, other: bytes, score: Scored) -> None:
    assert CODEC.decode(other, CODEC.encode(one, score, 0)) == (score if one == other else "mac")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.binary(min_size=ENCODED_BYTES - 1, max_size=ENCODED_BYTES - 1).map(bytes([SCHEMA]).__add__)
)
def test_no_bytes_of_others_are_a_score(value: bytes) -> None:
    assert CODEC.decode(KEY, value) in ("size", "schema", "mac")


@pytest.mark.parametrize("value", [None, 5, "text", [b"list"], ValueError("an error"), True])
def test_what_is_not_bytes_is_no_score(value: object) -> None:
    assert CODEC.decode(KEY, value) == "size"


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_read_even_if_we_wrote_it(logit: float) -> None:
    assert (
        CODEC.decode(KEY, CODEC.encode(KEY, Scored(logit, 1, 1, truncated=False), 0)) == "numbers"
    )


def test_more_image_tokens_than_tokens_are_nonsense() -> None:
    assert CODEC.decode(KEY, CODEC.encode(KEY, Scored(1.0, 1, 2, truncated=False), 0)) == "numbers"


def test_the_time_of_writing_is_stored_and_decides_nothing() -> None:
    score = Scored(1.5, 2, 1, truncated=True)
    values = [CODEC.encode(KEY, score, written_at) for written_at in (-1.0, 0.0, 1.7e9, 4e9, 1e12)]

    assert [struct.unpack_from("<I", value, 14)[0] for value in values] == [
        0,
        0,
        1_700_000_000,
        4_000_000_000,
        2**32 - 1,
    ]
    assert [CODEC.decode(KEY, value) for value in values] == [score] * 5
