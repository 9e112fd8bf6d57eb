"""Any JSON object is read or refused in every dialect, and a refusal names places of it."""

from __future__ import annotations

import copy
import json
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest, RerankError
from service.gateway.dialects.catalogue import DIALECTS
from service.gateway.dialects.dialect import Dialect
from service.gateway.domain import RerankQuery
from service.items import Item
from service.limits import Limits

EACH = {dialect.name: dialect for dialect in chain.from_iterable(DIALECTS.values())}
LIMITS = Limits(max_documents=4)
texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, *place: str | int) -> list[tuple[str | int, ...]]:
    """The locations in a JSON value."""
    steps: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        steps = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))

    found: list[tuple[str | int, ...]] = []
    for step, inner in steps:
        found += [(*place, step), *places(inner, *place, step)]
    return found


def replaced(body: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """A copy of a body with another value at a place."""
    changed = copy.deepcopy(body)
    *path, last = place
    inner = changed
    for step in path:
        inner = inner[step]
    inner[last] = value
    return changed


def errors(dialect: Dialect, body: dict[str, Any]) -> list[RerankError]:
    """The errors of a request as its client sees them."""
    try:
        query = dialect.read(body, LIMITS, "fail")
    except BadRequest as error:
        return [error]

    assert isinstance(query, RerankQuery)
    assert 1 <= len(query.documents) <= LIMITS.max_documents
    if not isinstance(query.query, Item):
        assert len(query.query) == len(query.documents) > 1
    return [document for document in query.documents if isinstance(document, RerankError)]


@pytest.mark.parametrize("name", sorted(EACH))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_changed_example_is_read_or_refused_at_a_place_of_the_request(
    name: str, data: st.DataObject
) -> None:
    dialect = EACH[name]
    example = data.draw(st.sampled_from(dialect.examples)).body
    place = data.draw(st.sampled_from(places(dict(example))))
    body = replaced(dict(example), place, data.draw(values))

    for error in errors(dialect, body):
        json.dumps(dialect.error_body(error, "rr-1"), allow_nan=False)
        described = dialect.error_body(error, "rr-1")
        assert described["message"] == described["detail"]
        for problem in described.get("errors", ()):
            assert problem["loc"][0] in {*dialect.request.model_fields, *example, place[0]}


@pytest.mark.parametrize("name", sorted(EACH))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_object_is_read_or_refused(name: str, data: st.DataObject) -> None:
    dialect = EACH[name]
    fields = sorted({*dialect.request.model_fields, "x"})
    body = data.draw(st.dictionaries(st.sampled_from(fields), values, max_size=4))
    for error in errors(dialect, body):
        json.dumps(dialect.error_body(error, "rr-1"), allow_nan=False)


EXPECT_EVERY_SCORE = {"tei", "hugging-face", "weaviate", "sglang"}
"""Dialects whose clients read the answer as if every document had a score, besides vLLM's."""


@pytest.mark.parametrize("name", sorted(EACH))
def test_the_operators_skip_holds_where_an_answer_may_lack_a_document(name: str) -> None:
    body = dict(EACH[name].examples[0].body)
    strict = name in EXPECT_EVERY_SCORE or name.startswith("vllm-score")
    assert EACH[name].read(body, LIMITS, "skip").skip_errors != strict
    assert EACH[name].read(body | {"on_error": "skip"}, LIMITS, "fail").skip_errors
