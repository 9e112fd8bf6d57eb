"""A number is read from an answer token by token, and anything else is no number."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.families.generated_answer import AnswerReader, answered, number_in
from model_store.families.readout import GeneratedScore
from model_store.families.tokens import LiteralTokenizer
from tests.conftest import TINY
from tests.qwen3 import THINK

READOUT = GeneratedScore(lowest=0, highest=10, max_tokens=2048)


def tokenizer_of(*, whole_ten: bool) -> LiteralTokenizer:
    """gmr-tiny's tokenizer with think tokens; with `whole_ten`, "10" is a token, too."""
    spec = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    size = 1 + max(token["id"] for token in spec["added_tokens"])
    for content in (*THINK, *(["10"] if whole_ten else [])):
        token = spec["added_tokens"][-1] | {"id": size, "content": content, "special": False}
        spec["added_tokens"].append(token)
        size += 1
    return LiteralTokenizer(json.dumps(spec))


TWO_TOKENS, ONE_TOKEN = tokenizer_of(whole_ten=False), tokenizer_of(whole_ten=True)


def ids_of(tokenizer: LiteralTokenizer, text: str) -> list[int]:
    """The ids of a text in which think tags and ends are control tokens."""
    ids: list[int] = []
    rest = text
    while rest:
        places = {token: rest.find(token) for token in tokenizer.controls if token in rest}
        token = min(places, key=lambda token: places[token], default="")
        before = rest[: places[token]] if token else rest
        if before:
            ids += tokenizer.encode([before])[0]
        if token:
            ids.append(tokenizer.control(token))
        rest = rest[len(before) + len(token) :]
    return ids


def read(tokenizer: LiteralTokenizer, text: str, probability: float = 0.5) -> AnswerReader:
    reader = AnswerReader(tokenizer, READOUT, 2048)
    for token in ids_of(tokenizer, text):
        reader.add(token, math.log(probability))
    return reader


@pytest.mark.parametrize("number", range(11))
def test_each_number_times_the_probability_of_its_tokens(number: int) -> None:
    text = f"<think>it is 3 of 4, or 10</think><answer>{number}</answer>"
    for tokenizer, tokens in ((TWO_TOKENS, len(str(number))), (ONE_TOKEN, 1)):
        reader = read(tokenizer, text)
        assert reader.ended
        assert reader.answer.score == pytest.approx(number * 0.5**tokens)
        assert reader.answer.tokens == len(ids_of(tokenizer, text))


def test_both_vocabularies_write_ten_as_said() -> None:
    assert len(ids_of(TWO_TOKENS, "10")) == 2
    assert len(ids_of(ONE_TOKEN, "10")) == 1


@pytest.mark.parametrize(
    "inside",
    [
        "", " ", "none", "11", "100", "-3", "+3", "7.5", "7/10", "7,5", "07", "1e1", "7 8",
        "\u0667", "\uff17", "\u00b2", "VII", "<think>7</think>", "7</think>", "7<", "<answer>7",
        "0x7", "\u22123",
    ],
)  # fmt: skip
def test_anything_else_is_no_number(inside: str) -> None:
    reader = read(TWO_TOKENS, f"<think>7</think><answer>{inside}</answer>")
    assert reader.ended
    assert reader.answer.score is None


@pytest.mark.parametrize(
    "text",
    [
        "7",
        "<think>7",
        "<think><answer>7</answer>",
        "<think>I shall write <answer>7</answer>",
        "<think>x</think>7",
        "<think>x</think><answer>",
        "<think>x</think><answer>7",
        "<think>x</think><answer>7</ans",
        "<think>x</think><Answer>7</Answer>",
    ],
)
def test_without_an_end_there_is_no_number_yet(text: str) -> None:
    reader = read(TWO_TOKENS, text)
    assert not reader.ended
    assert reader.answer.score is None


def test_the_first_answer_after_the_thinking_counts() -> None:
    text = "<think><answer>2</answer></think> so <answer>\n7 </answer><answer>9</answer>"
    assert number_in(text) is not None
    assert read(TWO_TOKENS, text, 1.0).answer.score == 7.0
    # tokens after the end are not counted
    assert read(TWO_TOKENS, text).answer.tokens < len(ids_of(TWO_TOKENS, text))


def test_an_answer_without_thinking_is_an_answer() -> None:
    assert read(TWO_TOKENS, "<answer>7</answer>", 1.0).answer.score == 7.0


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_the_end_of_the_turn_ends_the_answer(end: str) -> None:
    reader = read(TWO_TOKENS, f"<think>x</think><answer>7{end}</answer>")
    assert reader.ended
    assert reader.answer.score is None


def test_the_bound_ends_the_answer() -> None:
    text = "<think>x</think><answer>10</answer>"
    ids = ids_of(TWO_TOKENS, text)
    for bound in range(1, len(ids) + 1):
        reader = AnswerReader(TWO_TOKENS, READOUT, bound)
        for token in ids:
            reader.add(token, 0.0)
        assert reader.ended
        assert reader.answer.tokens == bound
        assert reader.answer.score == (10.0 if bound == len(ids) else None)


def test_an_answer_with_too_much_in_it_ends() -> None:
    assert read(TWO_TOKENS, "<think>x</think><answer>" + "well " * 40).ended


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "7", "10", "11", "-", ".", " ", "\n", "a",
     "\u0663", "<", "/answer>", "<|im_end|>"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join))
def test_more_text_changes_nothing_after_the_end(text: str) -> None:
    for end in range(len(text) + 1):
        if answered(text[:end]):
            assert number_in(text) == number_in(text[:end])
            break
    else:
        assert number_in(text) is None


@given(st.lists(PIECES, max_size=10).map("".join), st.integers(0, 20))
def test_the_score_is_the_number_in_the_text(noise: str, number: int) -> None:
    """Whatever was thought, without the end of thinking in it."""
    thought = noise.replace("</think>", "").replace("<|im_end|>", "")
    reader = read(TWO_TOKENS, f"<think>{thought}</think><answer>{number}</answer>", 1.0)
    assert reader.ended
    assert reader.answer.score == (float(number) if number <= 10 else None)
