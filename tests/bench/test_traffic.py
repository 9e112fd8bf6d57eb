"""All contenders get the same requests, none of them twice, but for workload R, where half of a
request's pairs were in the one before."""

from __future__ import annotations

from itertools import product

import pytest
from PIL import Image

from model_store.families.tokens import LiteralTokenizer
from service.bench.traffic import DESCRIPTIONS, WARM_UP, requests
from service.bench.workloads import Part, Request
from tests.conftest import TINY


@pytest.fixture(scope="module")
def tokenizer() -> LiteralTokenizer:
    return LiteralTokenizer.load(TINY)


def content(part: Part) -> str | bytes:
    return part if isinstance(part, str) else part.tobytes()


def documents(request: Request) -> list[str | bytes]:
    return [content(part) for part in request.documents]


@pytest.mark.parametrize("letter", list(DESCRIPTIONS))
def test_a_sample_is_the_same_each_time(tokenizer: LiteralTokenizer, letter: str) -> None:
    first = requests(letter, 4, 2, 3, tokenizer)
    again = requests(letter, 4, 2, 3, tokenizer)
    assert [request.body() for request in first] == [request.body() for request in again]


@pytest.mark.parametrize("letter", ["T", "Q", "L", "C"])
def test_no_request_is_sent_twice(tokenizer: LiteralTokenizer, letter: str) -> None:
    sent: list[Request] = []
    for callers, sample in product((1, 2), (WARM_UP, 0, 1)):
        sent += requests(letter, 3, callers, sample, tokenizer)
    assert len({content(request.query) for request in sent}) == len(sent) == 9
    assert {(request.cache, request.repeated) for request in sent} == {("bypass", 0)}


@pytest.mark.parametrize("size", [1, 2, 7, 10])
def test_half_of_a_repeating_request_was_in_the_one_before(
    tokenizer: LiteralTokenizer, size: int
) -> None:
    steps = [requests("R", size, 1, sample, tokenizer)[0] for sample in (WARM_UP, 0, 1, 2)]
    assert {content(step.query) for step in steps} == {content(steps[0].query)}
    assert [step.repeated for step in steps] == [0, size // 2, size // 2, size // 2]
    seen: set[str | bytes] = set()
    for step in steps:
        found = documents(step)
        assert len(set(found)) == size
        assert seen.intersection(found) == set(found[: step.repeated])
        assert step.body()["cache"] == "use"
        seen.update(found)


def test_a_repeating_request_has_texts_and_pictures_in_turns(tokenizer: LiteralTokenizer) -> None:
    (request,) = requests("R", 4, 1, WARM_UP, tokenizer)
    assert [isinstance(part, Image.Image) for part in request.documents] == [
        False,
        True,
        False,
        True,
    ]


def test_callers_of_a_repeating_workload_share_no_pair(tokenizer: LiteralTokenizer) -> None:
    one, other = requests("R", 6, 2, 0, tokenizer)
    assert not {content(one.query), *documents(one)} & {content(other.query), *documents(other)}
