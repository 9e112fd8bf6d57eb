"""Any request gets a valid answer or the flat error body, never a 5xx, and no internals of the
service."""

from __future__ import annotations

import copy
import json
import re
import struct
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api import RerankAnswer
from service.error_body import ErrorBody
from service.errors import BY_CODE
from tests.conftest import Rerank
from tests.gateway.encoded_pictures import PICTURES, bare, data_url, with_unwritable_exif
from tests.promises.bad_input.test_rerank_over_http import post

INSIDES = re.compile(
    r"0x[0-9a-f]{6,}|/[a-z]+/[a-z]+/|pydantic|msgspec|traceback|exception|pillow|\bPIL\b|torch|starlette|fastapi|uvicorn|httpx|anyio",
    re.IGNORECASE,
)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

any_text = st.text(st.characters(), max_size=30)  # surrogates among them
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_text, inner, max_size=5),
    max_leaves=20,
)
IMAGE = data_url(PICTURES["png"])
PART = {"type": "image_url", "image_url": {"url": IMAGE}}
VALID: dict[str, Any] = {
    "query": {"text": "a red circle"},
    "documents": [
        "plain",
        {"id": "p7", "text": "caption", "image": IMAGE},
        {"content": [{"type": "text", "text": "x"}, PART]},
    ],
    "model": "gmr-tiny",
    "instruction": "find",
    "top_n": 2,
    "return_documents": True,
    "min_score": 0.0,
    "truncate": "end",
    "on_error": "skip",
    "cache": "use",
}


def places(value: object, *place: str | int) -> list[tuple[str | int, ...]]:
    """The locations in a JSON value."""
    steps = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [
        found for step, inner in steps for found in [(*place, step), *places(inner, *place, step)]
    ]


edits = st.lists(
    st.tuples(st.sampled_from(places(VALID)), json_values | st.just("delete"), any_text),
    min_size=1,
    max_size=3,
)


def edited(changes: list[tuple[tuple[str | int, ...], object, str]]) -> dict[str, Any]:
    """A valid request with some values replaced or removed, and with further fields or elements
    beside them."""
    body = copy.deepcopy(VALID)
    for place, value, name in changes:
        inner: Any = body
        try:
            for step in place[:-1]:
                inner = inner[step]
            if value == "delete":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            if name and isinstance(inner, dict):
                inner[name] = value
        except (KeyError, IndexError, TypeError):  # an earlier change took the place away
            continue
    return body


def expect_sane(response: httpx.Response) -> None:
    assert response.status_code < 500
    assert response.headers["x-request-id"]
    if response.status_code == 200:
        answer = RerankAnswer.model_validate_json(response.content)
        assert answer.id == response.headers["x-request-id"]
        assert answer.results == sorted(answer.results, key=lambda each: (-each.logit, each.index))
        indexes = [each.index for each in [*answer.results, *answer.errors]]
        assert len(set(indexes)) == len(indexes)
        assert {each.code for each in answer.errors} <= set(BY_CODE)
        told = answer.model_dump_json(exclude={"results": {"__all__": {"id", "document"}}})
    else:
        error = ErrorBody.model_validate_json(response.content)
        assert BY_CODE[error.code].status == response.status_code
        assert error.detail == error.message
        assert error.request_id == response.headers["x-request-id"]
        told = " ".join([error.message, *(each.message for each in error.errors or [])])
    assert not INSIDES.search(told)


@quick
@given(st.binary(max_size=200))
def test_any_bytes(client: httpx.Client, body: bytes) -> None:
    expect_sane(post(client, body))


@quick
@given(json_values)
def test_any_json(client: httpx.Client, value: object) -> None:
    expect_sane(post(client, json.dumps(value).encode()))


@quick
@given(json_values, json_values)
def test_any_query_and_documents(client: httpx.Client, query: object, documents: object) -> None:
    expect_sane(
        post(
            client,
            json.dumps({"query": query, "documents": documents, "on_error": "skip"}).encode(),
        )
    )


@quick
@given(edits)
def test_a_valid_request_with_changes(
    client: httpx.Client, changes: list[tuple[tuple[str | int, ...], object, str]]
) -> None:
    expect_sane(post(client, json.dumps(edited(changes)).encode()))


@settings(quick, max_examples=20)
@given(
    st.text(max_size=200),
    st.lists(st.text(max_size=200), min_size=1, max_size=8),
    st.integers(1, 20),
)
def test_any_text(rerank: Rerank, query: str, documents: list[str], times: int) -> None:
    response = rerank(
        query=query, documents=[document * times for document in documents], return_documents=True
    )
    expect_sane(response)
    if response.status_code == 200:
        returned = {each["index"]: each["document"]["text"] for each in response.json()["results"]}
        assert returned == {index: document * times for index, document in enumerate(documents)}


def repaired(png: bytes) -> bytes:
    """A PNG with corrected checksums, so that its chunks are read."""
    data = bytearray(png)
    start = 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return bytes(data)


@st.composite
def broken_pictures(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from([*PICTURES.values(), with_unwritable_exif()])))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(
            st.integers(0, len(data) - 1)
            | st.integers(0, 250).filter(lambda place: place < len(data))
        )
        match draw(st.sampled_from(["change", "change", "insert", "delete", "cut"])):
            case "change":
                data[place] = draw(st.sampled_from([0, 1, 127, 255]) | st.integers(0, 255))
            case "insert":
                data[place:place] = draw(st.binary(max_size=8))
            case "delete":
                del data[place + 1 : place + draw(st.integers(2, 20))]
            case "cut":
                del data[place + 1 :]
    return (
        repaired(bytes(data))
        if data.startswith(b"\x89PNG") and draw(st.booleans())
        else bytes(data)
    )


@pytest.mark.slow
@settings(quick, max_examples=60)
@given(st.lists(broken_pictures(), min_size=1, max_size=8), st.sampled_from(["skip", "fail"]))
def test_broken_pictures(rerank: Rerank, broken: list[bytes], on_error: str) -> None:
    response = rerank(
        query="a circle",
        documents=["text", *({"image": bare(data)} for data in broken)],
        on_error=on_error,
    )
    expect_sane(response)
    if response.status_code == 200:
        answer = response.json()
        assert len(answer["results"]) + len(answer["errors"]) == 1 + len(broken)
    else:
        assert {each["loc"][0] for each in response.json()["errors"]} == {"documents"}


@settings(quick, max_examples=50)
@given(broken_pictures())
def test_a_broken_picture_as_the_query(rerank: Rerank, broken: bytes) -> None:
    expect_sane(rerank(query={"text": "like this", "image": bare(broken)}, documents=["text"]))


def test_exif_that_cannot_be_written_need_not_be(rerank: Rerank) -> None:
    response = rerank(query="q", documents=[{"image": bare(with_unwritable_exif())}])
    expect_sane(response)
    assert response.status_code == 200
