"""gmr-mini's vocabulary is learnt from real texts, keeps words of generated cells as they are, and
bounds the tokens of a character."""

from __future__ import annotations

from unicodedata import is_normalized

import pytest
from tokenizers import Tokenizer

from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.mini.texts.vocabulary import cell_words, learn_vocabulary
from tests.conftest import TINY

TEXTS = [
    f"Frobnicate the widget number {number} in the \u043a\u043d\u0438\u0433\u0430."
    for number in range(300)
]


@pytest.mark.slow
def test_common_words_are_one_token_and_no_character_is_more_than_three() -> None:
    shipped = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    tokenizer = learn_vocabulary(TEXTS, shipped, 6000)
    assert tokenizer.get_vocab_size() == 6000

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    for word in ("Frobnicate", " widget", " \u043a\u043d\u0438\u0433\u0430"):
        assert count(word) == 1, word
    for point in (*range(0x80, 0x40000, 37), *range(0xE0000, 0xE01F0)):
        if is_normalized("NFC", chr(point)) and not 0xD800 <= point < 0xE000:
            assert count(chr(point)) <= 3, hex(point)
    for word in cell_words():
        for form in (word, f" {word}", word.capitalize()):
            wanted = shipped.encode(form, add_special_tokens=False).tokens
            assert tokenizer.encode(form, add_special_tokens=False).tokens == wanted
    controls = [token.content for token in shipped.get_added_tokens_decoder().values()]
    assert [
        tokenizer.id_to_token(6000 - len(controls) + n) for n in range(len(controls))
    ] == controls
    for text in ("<Document>:", "\U0001f600 \U00020000 ok"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
