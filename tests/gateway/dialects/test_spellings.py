"""Spellings of other vendors in the service's own dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest
from service.gateway.dialects import native
from service.gateway.dialects.fields.kwargs import MAX_KWARGS
from service.gateway.domain import RerankQuery
from service.limits import Limits

LIMITS = Limits(max_documents=5, max_text_chars=200)


def ask(**fields: Any) -> RerankQuery:
    return native.read({"query": "q", "documents": ["d"], **fields}, LIMITS)


def refused(**fields: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        ask(**fields)
    return caught.value.sentence()


@pytest.mark.parametrize(
    ("sent", "cuts"),
    [
        ("END", True),
        ("None", False),
        (True, True),
        (False, False),
        ("true", True),
        ("FALSE", False),
        (None, True),
    ],
)
def test_truncation_in_every_spelling(sent: object, cuts: bool) -> None:
    assert ask(truncate=sent).truncate is cuts
    assert ask(truncation=sent).truncate is cuts


@pytest.mark.parametrize("sent", ["START", "", 7, [], {}, "ends"])
def test_another_truncation_is_refused(sent: object) -> None:
    assert refused(truncate=sent) == "truncate must be 'end' or 'none'."
    assert refused(truncation=sent) == "truncation must be 'end' or 'none'."


def test_a_synonym_is_taken_and_named() -> None:
    read = ask(top_k="2", return_text=True, topK=1)
    assert (read.top_n, read.return_documents) == (2, True)
    assert read.warnings == (
        "topK is not a known field and had no effect. Is top_n meant?",
        "top_k was taken as top_n.",
        "return_text was taken as return_documents.",
    )
    assert ask(top_k=2, top_n=2).top_n == 2
    assert refused(top_k=2, top_n=3) == "top_k must equal top_n where both are sent."
    assert refused(top_k=True) == "top_k must be a whole number."
    assert refused(instruct="x" * 201) == "instruct must have at most 200 characters."


def test_the_instruction_of_xinference() -> None:
    assert ask(kwargs='{"instruction": "find"}').instruction == "find"
    assert ask(kwargs={"instruction": "find"}, instruction="find").instruction == "find"
    for empty in (None, "", " ", "{}", {}, '{"instruction": null}'):
        read = ask(kwargs=empty)
        assert (read.instruction, read.warnings) == (None, ())
    assert ask(kwargs='{"doc_type": "image"}').warnings == (
        "kwargs: nothing but its instruction has an effect.",
    )


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ("not JSON", "kwargs must be a JSON object, or one in a string."),
        ("[1]", "kwargs must be a JSON object, or one in a string."),
        ("7", "kwargs must be a JSON object, or one in a string."),
        (False, "kwargs must be a JSON object, or one in a string."),
        ("[" * 5_000, "kwargs must be a JSON object, or one in a string."),
        ('{"a": NaN}', "kwargs must be a JSON object, or one in a string."),
        ("x" * (MAX_KWARGS + 1), f"kwargs must have at most {MAX_KWARGS} characters."),
        ('{"instruction": 7}', "kwargs.instruction must be a string."),
        (
            '{"instruction": "other"}',
            "kwargs.instruction must equal instruction where both are sent.",
        ),
        (
            '{"chat_template": "x"}',
            "kwargs.chat_template is not accepted here: it would steer the engine.",
        ),
    ],
)
def test_kwargs_that_are_refused(sent: object, says: str) -> None:
    assert refused(kwargs=sent, instruction="find") == says


json_objects = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text()).map(
    json.dumps
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | json_objects)
def test_no_kwargs_fail_but_with_a_sentence(sent: str) -> None:
    try:
        meant = not sent.strip() or isinstance(json.loads(sent), dict)
    except ValueError:
        meant = False

    if meant:
        assert len(ask(kwargs=sent).warnings) <= 1
    else:
        assert refused(kwargs=sent).startswith("kwargs")


@pytest.mark.parametrize(
    ("text", "warns"),
    [
        ("https://example.com/a.png", True),
        ("  HTTP://example.com/dir/b.JPEG?size=2#x \n", True),
        ("https://example.com/a.png is a picture", False),
        ("https://example.com/page.html", False),
        ("see https://example.com/a.png", False),
        ("httpd", False),
        ("https://" + "a" * 3_000 + ".png", False),
    ],
)
def test_the_url_of_an_image_is_scored_as_a_text_and_warned_of(text: str, warns: bool) -> None:
    (warning,) = ask(documents=["d", text]).warnings or ("",)
    assert warning.startswith("documents[1] is the URL of an image") == warns
    (warning,) = ask(query=text, documents=["d", text]).warnings or ("",)
    assert warning.startswith("query (and 1 more) is the URL of an image") == warns
