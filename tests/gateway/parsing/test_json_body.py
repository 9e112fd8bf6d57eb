"""A JSON body is built as the parser builds it, or refused before anything is built."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from service.errors import InvalidRequest
from service.gateway.parsing.json_body import IGNORED_BYTES, MAX_DEPTH, JsonBody

MOST = 10_000
ALL = frozenset(["query", "documents"])
characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, max_size=20) | st.text('\\"[]{},:\n\U0001f600é漢', max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)
objects = st.dictionaries(texts, values, max_size=6)


def refusal(body: bytes, most: int = MOST, **options: int) -> str:
    with pytest.raises(InvalidRequest) as caught:
        JsonBody(body, most, ALL, **options).build()
    return caught.value.message


def delimiters_in(value: Any) -> int:
    """Brackets and commas of a value as json.dumps writes it."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(delimiters_in(each) for each in value.values())
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(delimiters_in(each) for each in value)
    return 0


@settings(max_examples=300)
@given(objects, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 50))
def test_a_body_is_what_the_parser_says_and_its_delimiters_are_counted(
    value: dict[str, Any], ascii_only: bool, indent: int | None, chunk: int
) -> None:
    """However it is written, and wherever the scan's chunks end."""
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    count = delimiters_in(value)
    outline = JsonBody(body, count, value, chunk_bytes=chunk)

    assert outline.entries == {
        name: len(each) for name, each in value.items() if isinstance(each, list)
    }
    assert outline.build() == value

    if count > 1:
        assert (
            refusal(body, count - 1, chunk_bytes=chunk)
            == f"The request body may have {count - 1} brackets and commas outside of strings."
        )


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["input", "documents", "query", "a.b"]), values, max_size=4))
def test_the_fields_of_an_object_are_counted_and_built_like_those_of_the_body(
    inner: dict[str, Any],
) -> None:
    body = json.dumps({"documents": [1], "input": inner, "input.documents": [1, 2]}).encode()
    outline = JsonBody(body, MOST, ["documents", "input", ("input", "documents")])

    lengths = {"documents": 1}
    if isinstance(inner.get("documents"), list):
        lengths |= {("input", "documents"): len(inner["documents"])}
    assert outline.entries == lengths
    assert outline.build() == {"documents": [1], "input": inner, "input.documents": [1, 2]}


def test_a_long_field_of_an_object_is_built_only_where_it_is_needed() -> None:
    long = ["a" * IGNORED_BYTES]
    body = json.dumps({"input": {"documents": long, "other": long}}).encode()
    outline = JsonBody(body, MOST, ["input", ("input", "documents")])
    assert outline.build() == {"input": {"documents": long, "other": None}}


@settings(max_examples=500)
@given(
    st.binary(max_size=60) | st.text('{}[]",:\\ab1 \n', max_size=40).map(str.encode),
    st.integers(1, 10),
)
def test_any_bytes_are_an_object_or_refused_as_the_parser_does(body: bytes, chunk: int) -> None:
    try:
        expected = from_json(body, allow_inf_nan=False)
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert JsonBody(body, MOST, ALL, chunk_bytes=chunk).build() == expected
    else:
        refusal(body, chunk_bytes=chunk)


def size_of(value: Any) -> int:
    """Bytes of a value and all in it."""
    inside = 0
    if isinstance(value, dict):
        inside = sum(size_of(key) + size_of(each) for key, each in value.items())
    if isinstance(value, list):
        inside = sum(map(size_of, value))
    collected = 16 if isinstance(value, dict | list) else 0
    return sys.getsizeof(value) + collected + inside


WORST = {
    "empty lists": b"[" + b"[]," * 50_000 + b"0]",
    "empty objects": b"[" + b"{}," * 50_000 + b"0]",
    "small objects": b"[" + b",".join(b'{"%d":"%d"}' % (n, n) for n in range(20_000)) + b"]",
    "many names": b"{" + b",".join(b'"name %d":%d.5' % (n, n) for n in range(50_000)) + b"}",
    "tiny strings": b"[" + b",".join(b'"%d"' % n for n in range(50_000)) + b"]",
    "wide strings": ("[" + ",".join(f'"\U0001f600{n}"' for n in range(50_000)) + "]").encode(),
    "a wide text": ('"\U0001f600' + "a" * 1_000_000 + '"').encode(),
    "a wide text, escaped": b'"\\ud83d\\ude00' + b"a" * 1_000_000 + b'"',
    "large numbers": b"[" + b",".join([b"9" * 4_000] * 1_000) + b"]",
    "nested": b"[" + b",".join([b"[" * 90 + b"]" * 90] * 500) + b"]",
}


@pytest.mark.parametrize("shape", WORST)
def test_a_body_takes_no_more_memory_than_its_outline_says(shape: str) -> None:
    outline = JsonBody(b'{"query":' + WORST[shape] + b"}", 1_000_000, ALL)
    assert size_of(outline.build()) <= outline.memory


@pytest.mark.parametrize("shape", WORST)
def test_an_object_that_is_split_takes_no_more_memory_than_its_outline_says(shape: str) -> None:
    value = WORST[shape]
    body = value if value.startswith(b"{") else b'{"documents":' + value + b"}"
    needed = ["input", ("input", "documents")]
    outline = JsonBody(b'{"input":' + body + b"}", 1_000_000, needed)
    assert size_of(outline.build()) <= outline.memory


@pytest.mark.parametrize(
    "shape", [b"[],", b"{},", b'"a",', b"0,", b'{"a":[]},', b'["\\"",\n', b"["]
)
def test_a_body_of_too_many_values_is_refused_before_any_is_built(shape: bytes) -> None:
    body = b'{"documents":[' + shape * (4 * 2**20 // len(shape)) + b"0]}"
    tracemalloc.start()
    try:
        assert "may " in refusal(body)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 16 * 2**20, "the first chunk alone is looked at"


def test_depth_is_bounded_whatever_strings_say() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b'"[[[[{{{"' + b"}" * depth

    assert JsonBody(nested(MAX_DEPTH), MOST, ALL).build()
    assert refusal(nested(MAX_DEPTH + 1)) == f"The request body may be nested {MAX_DEPTH} deep."


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"7", b"null", b'"a"', b"{", b'{"a":1}]', b"]" * 100, b'{"a":"\\ud800"}'],
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body) in (
        "The request body is not valid JSON.",
        "The request body must be a JSON object.",
    )


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "The request body looks like UTF-16 or UTF-32: send JSON as UTF-8."),
        ("utf-16-le", "The request body looks like UTF-16 or UTF-32: send JSON as UTF-8."),
        ("utf-16-be", "The request body looks like UTF-16 or UTF-32: send JSON as UTF-8."),
        ("utf-32", "The request body looks like UTF-16 or UTF-32: send JSON as UTF-8."),
        ("latin-1", "The request body is not valid UTF-8: send JSON as UTF-8."),
        ("cp1252", "The request body is not valid UTF-8: send JSON as UTF-8."),
    ],
)
def test_a_body_in_another_encoding_is_told_which_to_send(encoding: str, said: str) -> None:
    for text in ('{"query": "für", "documents": ["a"]}', '{"query": "q", "documents": ["ä"]}'):
        assert refusal(text.encode(encoding)) == said


@given(st.binary(max_size=200))
def test_gzip_without_its_header_is_told_so(data: bytes) -> None:
    said = "The request body is gzip: send Content-Encoding: gzip with it."
    assert refusal(gzip.compress(data)) == said


def test_of_a_long_field_that_nobody_reads_the_name_is_left() -> None:
    long = b"a" * IGNORED_BYTES
    outline = JsonBody(b'{"query":"%s","x":["%s"],"y":["z"]}' % (long, long), MOST, ALL)

    assert outline.memory < 2.5 * IGNORED_BYTES
    assert outline.entries == {}
    assert outline.build() == {"query": long.decode(), "x": None, "y": ["z"]}


def test_a_name_that_is_given_twice_counts_once_and_the_last_time() -> None:
    outline = JsonBody(b'{"documents":["a","b"],"documents":["c"]}', MOST, ALL)
    assert outline.entries == {"documents": 1}
    assert outline.build() == {"documents": ["c"]}
