"""Text becomes ids literally: no text that a user types gives a control token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model_store.families.tokens import TOKENIZER_FILE, LiteralTokenizer, TokenizerMismatch
from tests.conftest import TINY

CONTROLS = LiteralTokenizer.load(TINY).controls

anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ordinary = anything.filter(lambda text: not any(token in text for token in CONTROLS))
prose = st.lists(
    st.sampled_from(
        ["every", "good", "boy", "café", "naïve", "日本語", "🙂", "e\u0301", "\n\n", "1984", "?!"]
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def tokenizer() -> LiteralTokenizer:
    return LiteralTokenizer.load(TINY)


@pytest.fixture(scope="module")
def plain() -> Tokenizer:
    return Tokenizer.from_file(str(TINY / TOKENIZER_FILE))


def test_the_plain_tokenizer_does_give_control_tokens(plain: Tokenizer) -> None:
    for token, control in CONTROLS.items():
        assert control in plain.encode(f"a {token} b", add_special_tokens=False).ids


@settings(max_examples=300, deadline=None)
@given(
    before=anything,
    token=st.sampled_from(sorted(CONTROLS)),
    after=anything,
    times=st.integers(1, 3),
)
def test_no_typed_text_gives_a_control_token(
    tokenizer: LiteralTokenizer, before: str, token: str, after: str, times: int
) -> None:
    (ids,) = tokenizer.encode([before + token * times + after])
    assert not set(ids) & set(CONTROLS.values())


@settings(max_examples=100, deadline=None)
@given(halves=st.tuples(st.sampled_from(sorted(CONTROLS)), st.integers(0, 8)), text=anything)
def test_no_text_broken_into_a_control_token_gives_one(
    tokenizer: LiteralTokenizer, halves: tuple[str, int], text: str
) -> None:
    token, at = halves
    (ids,) = tokenizer.encode([token[:at] + text + token[at:]])
    assert not set(ids) & set(CONTROLS.values())


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(ordinary, max_size=4))
def test_ordinary_text_gets_the_plain_tokenizers_ids(
    tokenizer: LiteralTokenizer, plain: Tokenizer, texts: list[str]
) -> None:
    assert tokenizer.encode(texts) == [
        plain.encode(text, add_special_tokens=False).ids for text in texts
    ]


@settings(max_examples=200, deadline=None)
@given(text=anything | st.sampled_from(sorted(CONTROLS)))
def test_ids_decode_to_the_text(tokenizer: LiteralTokenizer, plain: Tokenizer, text: str) -> None:
    (ids,) = tokenizer.encode([text])
    assert plain.decode(ids, skip_special_tokens=False) == plain.normalizer.normalize_str(text)


def test_an_empty_text_has_no_ids(tokenizer: LiteralTokenizer) -> None:
    assert tokenizer.encode(["", "a", ""])[::2] == [[], []]
    assert tokenizer.encode([]) == []


class TestCut:
    """The longest beginning within a limit."""

    @settings(max_examples=300, deadline=None)
    @given(text=anything | prose.map(" ".join), limit=st.integers(-1, 40))
    def test_a_cut_text_is_a_beginning_within_the_limit(
        self, tokenizer: LiteralTokenizer, text: str, limit: int
    ) -> None:
        head = tokenizer.cut(text, limit)
        assert text.startswith(head)
        assert len(tokenizer.encode([head])[0]) <= max(limit, 0)

    @settings(max_examples=100, deadline=None)
    @given(text=anything | prose.map(" ".join))
    def test_a_text_within_the_limit_stays_whole(
        self, tokenizer: LiteralTokenizer, text: str
    ) -> None:
        (ids,) = tokenizer.encode([text])
        assert tokenizer.cut(text, len(ids) + 1) == text

    @pytest.mark.parametrize("limit", range(12))
    def test_english_is_cut_to_the_very_limit(
        self, tokenizer: LiteralTokenizer, limit: int
    ) -> None:
        text = "Close the file, then sort the list in ascending order and return None."
        (ids,) = tokenizer.encode([text])
        assert tokenizer.encode([tokenizer.cut(text, limit)]) == [ids[:limit]]

    def test_a_character_of_several_tokens_is_never_broken(
        self, tokenizer: LiteralTokenizer
    ) -> None:
        text = "🜁" * 5
        (one,) = tokenizer.encode(["🜁"])
        assert len(one) > 1
        assert tokenizer.cut(text, 2 * len(one) - 1) == "🜁"
        assert tokenizer.cut(text, 2 * len(one)) == "🜁🜁"


class TestMismatch:
    """A tokenizer that does not fit is refused, with a reason."""

    def test_a_label_is_the_one_id_of_its_word(self, tokenizer: LiteralTokenizer) -> None:
        assert [[tokenizer.label(word)] for word in ("yes", "no")] == tokenizer.encode(
            ["yes", "no"]
        )

    @pytest.mark.parametrize("word", ["", "yes no", "<|im_end|>", "zqxjkvbw"])
    def test_a_label_that_is_not_one_token_is_refused(
        self, tokenizer: LiteralTokenizer, word: str
    ) -> None:
        with pytest.raises(TokenizerMismatch, match="not one"):
            tokenizer.label(word)

    @pytest.mark.parametrize("token", ["<|im_gone|>", "yes", ""])
    def test_only_added_tokens_are_controls(self, tokenizer: LiteralTokenizer, token: str) -> None:
        with pytest.raises(TokenizerMismatch, match="no control token"):
            tokenizer.control(token)

    def test_each_control_has_its_own_id(
        self, tokenizer: LiteralTokenizer, plain: Tokenizer
    ) -> None:
        assert {token: tokenizer.control(token) for token in CONTROLS} == {
            added.content: number for number, added in plain.get_added_tokens_decoder().items()
        }

    def test_a_folder_without_a_tokenizer_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            LiteralTokenizer.load(tmp_path)

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"added_tokens": []}', '{"added_tokens": [{}], "model": {}}', "\ufeff{"],
    )
    def test_a_file_that_is_no_tokenizer_is_refused(self, text: str) -> None:
        with pytest.raises(TokenizerMismatch, match="no readable tokenizer"):
            LiteralTokenizer(text)

    def test_a_changed_copy_without_added_tokens_has_no_controls(self) -> None:
        spec = json.loads((TINY / TOKENIZER_FILE).read_text(encoding="utf-8")) | {
            "added_tokens": []
        }
        assert LiteralTokenizer(json.dumps(spec)).controls == {}
