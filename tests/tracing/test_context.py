"""W3C trace context: what is accepted from a client, and what is propagated."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from service.observability.tracing import TraceContext, read_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
trace_ids = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
span_ids = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
keys = st.text("abcxyz0189", min_size=1, max_size=20)
values = st.text(
    "".join(sorted(set(map(chr, range(0x21, 0x7F))) - {",", "="})), min_size=1, max_size=20
)


def read(parent: str | bytes, *states: str | bytes) -> TraceContext | None:
    def raw(value: str | bytes) -> bytes:
        return value if isinstance(value, bytes) else value.encode("latin-1", "replace")

    return read_context(
        [(b"traceparent", raw(parent)), *((b"tracestate", raw(state)) for state in states)]
    )


@calm
@given(trace_ids, span_ids, st.booleans(), st.dictionaries(keys, values, max_size=10))
def test_what_is_handed_on_is_read_as_what_it_was(
    trace: str, span: str, sampled: bool, members: dict[str, str]
) -> None:
    state = ",".join(f"{key}={value}" for key, value in members.items())
    context = TraceContext(trace, span, sampled, state)
    assert (
        read_context([(name.encode(), value.encode()) for name, value in context.headers().items()])
        == context
    )


@calm
@given(trace_ids, span_ids, st.integers(0, 255))
def test_only_the_last_bit_of_the_flags_counts_and_only_it_is_handed_on(
    trace: str, span: str, flags: int
) -> None:
    context = read(f"00-{trace}-{span}-{flags:02x}")
    assert context == TraceContext(trace, span, flags % 2 == 1)
    assert context.headers()["traceparent"][-2:] == f"{flags % 2:02x}"


@calm
@given(st.binary(max_size=80))
@example(GOOD.upper().encode())
@example(f"00-{'0' * 32}-{SPAN}-01".encode())
@example(f"00-{TRACE}-{'0' * 16}-01".encode())
@example(f"01-{TRACE}-{SPAN}-01".encode())
@example(f"ff-{TRACE}-{SPAN}-01".encode())
@example(f"{GOOD}-".encode())
@example(f"{GOOD}\n".encode())
@example(f" {GOOD}".encode())
@example(GOOD.encode()[:-1])
@example(GOOD.replace("-", "_").encode())
@example(GOOD.replace("4", "\u0664").encode())
def test_nothing_else_is_a_place_in_a_trace(header: bytes) -> None:
    well_formed = re.fullmatch(
        rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", header
    )
    assert (read(header) is not None) == (well_formed is not None and not header.endswith(b"\n"))


@calm
@given(st.integers(0, 54), st.sampled_from([*"-ghXYZ/ \t\x00\xff", "ä", "٤"]))
def test_one_wrong_letter_is_one_too_many(place: int, letter: str) -> None:
    spoilt = GOOD[:place] + letter + GOOD[place + 1 :]
    assert read(spoilt) is None or spoilt == GOOD


def test_two_parents_are_none() -> None:
    assert read_context([(b"traceparent", GOOD.encode()), (b"traceparent", GOOD.encode())]) is None
    assert read_context([]) is None


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["a=1"], "a=1"),
        (["a=1, b=2"], "a=1,b=2"),
        (["a=1", "b=2"], "a=1,b=2"),
        (["a@tenant=x y"], "a@tenant=x y"),
        (["a=1,,b=2,"], "a=1,b=2"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a"], ""),
        (["a=\x01"], ""),
        (["a=1=2"], ""),
        (["a=" + "x" * 600], ""),
        (
            [",".join(f"k{number}=1" for number in range(32))],
            ",".join(f"k{number}=1" for number in range(32)),
        ),
        ([",".join(f"k{number}=1" for number in range(33))], ""),
        ([b"a=\xff"], ""),
    ],
)
def test_others_notes_are_kept_if_they_are_well_formed(
    states: list[str | bytes], kept: str
) -> None:
    context = read(GOOD, *states)
    assert context is not None
    assert context.state == kept


@calm
@given(st.lists(st.binary(max_size=700), max_size=4))
def test_whatever_notes_come_what_is_kept_is_short_and_printable(states: list[bytes]) -> None:
    context = read(GOOD, *states)
    assert context is not None
    assert len(context.state) <= 512
    assert all(" " <= character <= "~" for character in context.state)
