"""All dialects over one service: the same pairs have the same order and scores in each of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.dialects.catalogue import DIALECTS, choose
from service.gateway.dialects.dialect import RequestMarks
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from tests.gateway.dialects.forms import FORMS, NAMES, plain

TEXTS = ["a blue square", "a red circle", "a list of numbers", "red", "Kreise, rot — ⭕"]
PICTURES = [RED_CIRCLE, BLUE_SQUARE]


def test_every_dialect_is_in_the_comparison() -> None:
    assert FORMS.keys() == NAMES


items = st.sampled_from(TEXTS) | st.sampled_from(PICTURES).map(lambda url: {"image": url})


@settings(max_examples=8, deadline=None)
@given(query=st.sampled_from(TEXTS), documents=st.lists(items, min_size=1, max_size=6))
def test_each_dialect_gives_the_order_and_the_scores_of_the_native_one(
    client: httpx.Client, query: str, documents: list[Any]
) -> None:
    native = client.post("/v2/rerank", json=plain(query, documents)).json()["results"]
    has_pictures = any(isinstance(document, dict) for document in documents)

    for name, form in FORMS.items():
        if has_pictures and not form.pictures:
            continue
        answer = client.post(form.path, json=form.body(query, documents), headers=form.headers)
        assert answer.is_success, (name, answer.text)
        score = "logit" if form.logits else "relevance_score"
        assert form.ranking(answer.json()) == [(each["index"], each[score]) for each in native], (
            name
        )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_picture_is_scored_or_refused_and_never_read_as_text(
    client: httpx.Client, name: str
) -> None:
    form = FORMS[name]
    documents: list[Any] = ["a red circle", {"image": RED_CIRCLE}]
    answer = client.post(form.path, json=form.body("red", documents), headers=form.headers)
    assert answer.status_code == (httpx.codes.OK if form.pictures else httpx.codes.BAD_REQUEST)

    as_text = client.post(
        form.path, json=form.body("red", ["a", f"see {RED_CIRCLE}"]), headers=form.headers
    )
    assert (as_text.status_code, as_text.json()["code"]) == (400, "invalid_request")


@settings(max_examples=200, deadline=None)
@given(
    fields=st.frozensets(
        st.sampled_from(["query", "documents", "texts", "top_k", "truncation", "property", "x"])
    ),
    source=st.none() | st.sampled_from(["unspecified:elasticsearch", "other"]),
)
def test_a_request_is_in_a_dialect_whatever_its_marks(
    fields: frozenset[str], source: str | None
) -> None:
    headers = {} if source is None else {"request-source": source}
    for dialects in DIALECTS.values():
        marks = RequestMarks(fields, headers)
        chosen = choose(dialects, marks)
        matching = [dialect for dialect in dialects if dialect.matches(marks)]
        assert matching[0] is chosen
        assert matching[-1] is dialects[-1]
