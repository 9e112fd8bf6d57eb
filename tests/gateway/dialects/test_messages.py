"""The message of a 400 names the field by its path, and the bound, for every field of the request's
schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api import RerankRequest
from service.errors import (
    MAX_PROBLEMS,
    BadRequest,
    InvalidRequest,
    Loc,
    Problem,
    RerankError,
    path_of,
)
from service.gateway.dialects import native
from service.limits import Limits

LIMITS = Limits(max_documents=5, max_text_chars=50)
SCHEMA = RerankRequest.model_json_schema()
TEXT = {"type": "text", "text": "x"}
Body = dict[str, Any]
Violation = tuple[str, Body, Loc, str]
"""A name for pytest, the body, the location of its one mistake, and a part of the message.
"""

WRONG = {
    "string": [7, []],
    "boolean": ["maybe"],
    "integer": ["many", True, 1.5],
    "number": ["high", True],
    "array": ["x", {}],
    "object": [7, []],
}
"""Values that are not of a JSON type, and that no field takes for one."""


def content_of(part: object) -> Body:
    return {"content": [TEXT, part]}


def in_item(item: object, *inner: str | int) -> list[tuple[Body, Loc]]:
    """An item as the query and as a document, with the location of a part of it."""
    return [
        ({"query": item, "documents": ["d"]}, ("query", *inner)),
        ({"query": "q", "documents": ["d", item]}, ("documents", 1, *inner)),
    ]


def holding(kind: str, name: str, value: object) -> list[tuple[Body, Loc]]:
    """Bodies that are valid but for one field of a kind of object, and that field's location."""
    match kind:
        case "RerankRequest":
            return [({"query": "q", "documents": ["d"], name: value}, (name,))]
        case "Item":
            rest = {} if name == "content" else {"text": "x"}
            return in_item(rest | {name: value}, name)
        case "ContentPart":
            return in_item(content_of(TEXT | {name: value}), "content", 1, name)
        case "ImageUrl":
            part = {"type": "image_url", "image_url": {"url": "aaaa"} | {name: value}}
            return in_item(content_of(part), "content", 1, "image_url", name)
    raise AssertionError(f"a kind of object that this test does not know: {kind}")


def branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]


def breaches(schema: dict[str, Any]) -> Iterator[tuple[object, str, Loc]]:
    """Values that break one constraint of a field, a part of the message for each, and the location
    inside the value."""
    known = branches(schema)
    types = {branch.get("type") for branch in known}
    wrong = WRONG[str(known[0].get("type", "string"))]
    if not any("$ref" in branch for branch in known):
        yield from (
            (value, "must be", ()) for value in wrong if value != 7 or "integer" not in types
        )

    for branch in known:
        yield from out_of_bounds(branch, "integer" if len(types) > 1 else None)
        if branch.get("type") == "array" and "$ref" not in str(branch["items"]):
            yield from (
                ([value], says, (0, *inner)) for value, says, inner in breaches(branch["items"])
            )


def out_of_bounds(branch: dict[str, Any], says: str | None) -> Iterator[tuple[object, str, Loc]]:
    """A value beyond each bound. `says` is the part of the message instead of the bound where a
    field takes several types."""
    text = "items" not in branch or "$ref" not in str(branch["items"])
    beyond: dict[str, Callable[[Any], object]] = {
        "enum": lambda _: "nothing of it",
        "minimum": lambda bound: bound - 1,
        "maximum": lambda bound: bound + 1,
        "maxLength": lambda bound: "x" * (bound + 1),
        "minLength": lambda bound: "x" * (bound - 1),
        "maxItems": lambda bound: ["x" if text else TEXT] * (bound + 1),
    }
    for constraint, value in beyond.items():
        if constraint in branch:
            bound = branch[constraint]
            yield value(bound), says or str(bound[0] if constraint == "enum" else bound), ()


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each kind of object in the request's schema."""
    yield "RerankRequest", SCHEMA
    for name, schema in SCHEMA["$defs"].items():
        yield name, next(branch for branch in branches(schema) if branch["type"] == "object")


def violations() -> Iterator[Violation]:
    for kind, schema in objects():
        for name, field in schema["properties"].items():
            if (kind, name) == ("RerankRequest", "documents"):
                continue  # one item stands for a list; its messages have a test of their own
            for value, says, inner in breaches(field):
                for body, loc in holding(kind, name, value):
                    yield f"{path_of(loc)}={str(value)[:20]}", body, (*loc, *inner), says
        if not schema.get("additionalProperties", True):
            for body, loc in holding(kind, "titel", "x"):
                yield f"{path_of(loc)}", body, loc, "is not a known field"


FOUND = list(violations())


def sentence(body: Body) -> str:
    """The message that a body is refused with, or else the one of its document."""
    try:
        read = native.read(body, LIMITS)
    except BadRequest as error:
        return error.sentence()

    refused = [each for each in read.documents if isinstance(each, RerankError)]

    assert refused, body
    return refused[0].sentence()


@pytest.mark.parametrize(("name", "body", "loc", "says"), FOUND, ids=[each[0] for each in FOUND])
def test_each_constraint_of_the_schema_is_named_with_its_field(
    name: str, body: Body, loc: Loc, says: str
) -> None:
    told = sentence(body)
    assert told.startswith(f"{path_of(loc)} "), told
    assert says in told
    assert told.endswith(".")
    assert "not valid" not in told


def test_the_walk_comes_everywhere() -> None:
    walked = {each[2] for each in FOUND}
    for name in RerankRequest.model_fields.keys() - {"query", "documents"}:
        assert any(loc[0] == name for loc in walked), name

    assert ("documents", 1, "content", 1, "image_url", "detail") in walked
    assert ("query", "metadata") in walked


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"query": None}, "query is required."),
        ({"query": 7}, "query must be a string or an object."),
        ({"documents": None}, "documents is required."),
        ({"documents": []}, "documents must hold 1 to 5 documents."),
        ({"documents": ["d"] * 6}, "documents must hold 1 to 5 documents."),
        ({"documents": ["d", 7]}, "documents[1] must be a string or an object."),
        ({"documents": ["d", ""]}, "documents[1] needs a text or an image."),
        ({"documents": content_of("x")}, "documents[0].content[1] must be an object."),
        (
            {"documents": content_of({"type": "text"})},
            "documents[0].content[1] must hold what its type names, and nothing else.",
        ),
        (
            {"documents": content_of(TEXT) | {"text": "x"}},
            "documents[0] must have either content, or text and image.",
        ),
        ({"instruction": "x" * 51}, "instruction must have at most 50 characters."),
        ({"top_n": -1}, "top_n must be at least 0."),
        ({"truncate": "middle"}, "truncate must be 'end' or 'none'."),
        ({"cache_salt": "x"}, "cache_salt is not accepted here: it would steer the engine."),
        ({"top_n": -1, "min_score": 2, "cache": "no"}, "top_n must be at least 0 (and 2 more)."),
        ({"query": {"text": "q", "we ird\n": 1}}, 'query["we ird\\n"] is not a known field.'),
        ({"query": {"text": "q", "x" * 99: 1}}, f"query.{'x' * 64} is not a known field."),
    ],
)
def test_sentences(fields: Body, told: str) -> None:
    assert sentence({"query": "q", "documents": ["d"], **fields}) == told


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("This must be a string.", "documents[3].image must be a string."),
        ("The image cannot be read.", "documents[3].image cannot be read."),
        ("This alone has too many tokens.", "documents[3].image alone has too many tokens."),
        ("This list may have 5 entries.", "documents[3].image: this list may have 5 entries."),
        ("An item may hold 4 images.", "documents[3].image may hold 4 images."),
        ("The image's sides are short.", "documents[3].image: the image's sides are short."),
        ("Image URLs are not fetched.", "documents[3].image: image URLs are not fetched."),
    ],
)
def test_the_place_is_the_sentences_subject_or_stands_before_it(message: str, told: str) -> None:
    assert InvalidRequest(message).at(("documents", 3, "image")).sentence() == told


def test_problems_that_are_not_listed_are_counted() -> None:
    problems = [Problem(("documents", index), "This must be a string.") for index in range(3)]
    assert (
        InvalidRequest(problems=problems, unlisted=40).sentence()
        == "documents[0] must be a string (and 42 more)."
    )
    assert InvalidRequest("Words.").sentence() == "Words."


def test_an_object_of_many_fields_is_not_looked_into() -> None:
    """Each unknown field would be a finding of its own, many times larger than what was sent."""
    crowded = {f"field{number}": 1 for number in range(50_000)}
    part = {"type": "text", "text": "x"}
    for item, path in (
        (crowded, "documents[0]"),
        ({"content": [part | crowded]}, "documents[0].content[0]"),
        (
            {"content": [{"type": "image_url", "image_url": crowded}]},
            "documents[0].content[0].image_url",
        ),
    ):
        (refused,) = native.read({"query": "q", "documents": [item]}, LIMITS).documents
        assert isinstance(refused, InvalidRequest)
        assert refused.sentence() == f"{path} must have at most 16 fields."


def test_one_document_lists_a_bounded_number_of_places() -> None:
    parts = [TEXT | {f"field{number}": 1 for number in range(14)}] * 64
    (refused,) = native.read({"query": "q", "documents": {"content": parts}}, LIMITS).documents

    assert isinstance(refused, InvalidRequest)
    assert len(refused.problems) == MAX_PROBLEMS
    assert (
        refused.sentence()
        == f"documents[0].content[0].field0 is not a known field (and {64 * 14 - 1} more)."
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9999) | st.text(max_size=70), min_size=1, max_size=5))
def test_any_place_is_written_on_one_line_of_ascii(loc: list[str | int]) -> None:
    path = path_of(tuple(loc))
    assert path.isascii()
    assert path.isprintable()
