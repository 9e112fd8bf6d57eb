"""The next vocabulary is learnt from real texts, and bounds the tokens of a character."""

from __future__ import annotations

from unicodedata import is_normalized

import pytest

from model_store.recipes.tiny.start.vocabulary import learn_vocabulary

TEXTS = [
    f"Frobnicate the widget number {number} in the \u043a\u043d\u0438\u0433\u0430."
    for number in range(300)
]


@pytest.mark.slow
def test_common_words_are_one_token_and_no_character_is_more_than_three() -> None:
    tokenizer = learn_vocabulary(TEXTS, 6000)
    assert tokenizer.get_vocab_size() == 6000

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    for word in ("Frobnicate", " widget", " \u043a\u043d\u0438\u0433\u0430"):
        assert count(word) == 1, word
    for point in (*range(0x80, 0x40000, 37), *range(0xE0000, 0xE01F0)):
        if is_normalized("NFC", chr(point)) and not 0xD800 <= point < 0xE000:
            assert count(chr(point)) <= 3, hex(point)
    for text in ("<Document>:", "\U0001f600 \U00020000 ok"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
