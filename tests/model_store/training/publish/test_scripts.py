"""The card says which scripts a vocabulary knows, as it was measured."""

from __future__ import annotations

import json

import pytest
import regex

from model_store.checkpoint import resolve
from model_store.training.publish.folder import CARD
from model_store.training.publish.scripts import BY_BYTES, SENTENCES, measure, section
from tests.conftest import TINY
from tests.model_store.families.vocabularies import vocabulary


def test_the_card_that_ships_says_what_its_tokenizer_does() -> None:
    checkpoint = resolve(str(TINY))
    lines = section(checkpoint.family.tokenizer, checkpoint.manifest.max_tokens)
    assert "\n".join(["", *lines, ""]) in (TINY / CARD).read_text(encoding="utf-8")


def test_english_is_read_in_words_and_chinese_in_bytes() -> None:
    costs = {cost.script: cost for cost in measure(resolve(str(TINY)).family.tokenizer)}
    assert costs["Latin (English)"].a_character < 0.4
    assert costs["Han (Chinese)"].a_character == 3
    assert costs["Han (Chinese)"].a_byte == 1 > BY_BYTES


def test_a_vocabulary_of_bytes_knows_no_script_and_one_with_chinese_in_it_does() -> None:
    assert all(cost.a_byte == 1 for cost in measure(vocabulary("bytes alone")))
    assert "No script" not in section(vocabulary("bytes alone"), 3_200)[-1]
    learnt = {cost.script: cost for cost in measure(vocabulary("many scripts"))}
    assert learnt["Cyrillic (Russian)"].a_byte < BY_BYTES


@pytest.mark.parametrize(
    ("script", "text"), json.loads(SENTENCES.read_text(encoding="utf-8")).items()
)
def test_a_sentence_is_of_its_script(script: str, text: str) -> None:
    names = [
        "Hiragana" if name == "Kana" else name for name in script.partition(" (")[0].split(" and ")
    ]
    letters = regex.findall(r"\p{L}", text)
    own = [
        letter
        for letter in letters
        if any(regex.match(rf"\p{{Script={name}}}", letter) for name in names)
    ]
    assert len(own) == len(letters) >= 15
