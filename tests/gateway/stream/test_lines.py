"""Lines of a body that is cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from service.gateway.stream.lines import LineSplitter

MAX_BYTES = 8
LINES = st.lists(st.text("ab \t{é", max_size=6), max_size=8)


def split(body: bytes, cuts: Sequence[int], max_bytes: int = MAX_BYTES) -> dict[int, bytes | None]:
    """The lines by number, of a body that is cut at some places."""
    splitter = LineSplitter(max_bytes)
    lines = []
    places = sorted({cut % (len(body) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(body)], strict=True):
        lines += splitter.feed(body[start:end])
        assert splitter.held <= max_bytes
    lines += splitter.end()
    return {line.number: None if line.content is None else bytes(line.content) for line in lines}


def expected(texts: Sequence[str], end: bytes) -> dict[int, bytes | None]:
    found: dict[int, bytes | None] = {}
    for number, text in enumerate(texts, 1):
        content = text.encode()
        # the carriage return is held with its line until the line ends
        if len(content) + len(end) - 1 > MAX_BYTES:
            found[number] = None
        elif content.strip():
            found[number] = content
    return found


@given(LINES, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 200), max_size=6))
def test_lines_are_the_same_wherever_the_body_is_cut(
    texts: list[str], end: bytes, cuts: list[int]
) -> None:
    body = b"".join(text.encode() + end for text in texts)
    assert split(body, cuts) == expected(texts, end)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_give_the_same_lines_wherever_they_are_cut(body: bytes, cuts: list[int]) -> None:
    assert split(body, cuts) == split(body, [])


def test_the_last_line_needs_no_end_and_blank_lines_are_counted() -> None:
    assert split(b"a\n\n \r\nb", [2]) == {1: b"a", 4: b"b"}


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert split(b"\xef\xbb\xbf{}\n{}", [1]) == {1: b"{}", 2: b"{}"}


def test_a_line_that_is_too_long_is_dropped_alone() -> None:
    assert split(b"a\n" + b"x" * 100 + b"\nb\n" + b"y" * 9, [5, 50]) == {
        1: b"a",
        2: None,
        3: b"b",
        4: None,
    }
