"""Doubts about single texts: too little, damaged, or in another script than the rest of their row.

Depends on texts, not on models. Memory is bounded. Invariant: every row is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from model_store.training.data.doubts.doubt import Doubt, Places, found
from model_store.training.data.doubts.words import damage, hidden, markup, script_of, word_count
from model_store.training.data.identity import normalize_text
from model_store.training.data.rows import Example, Side

LONG_CHARACTERS = 13_760
"""About 3,200 tokens of English, at 4.3 characters a token: the paper's bound of a pair."""


class TextDoubts:
    """Looks at each text of each row."""

    def __init__(self, *, estimates_tokens: bool = True) -> None:
        """`estimates_tokens` is false where a tokenizer counts them."""
        self._estimates_tokens = estimates_tokens
        self._rows = self._texts = 0
        self._one_word, self._answered = Places(), Places()
        self._damaged, self._markup, self._hidden = Places(), Places(), Places()
        self._scripts, self._long = Places(), Places()

    def see(self, example: Example, line: int) -> None:
        """As `Detector.see`."""
        self._rows += 1
        query = example.query
        if query.text is not None and query.image is None and word_count(query.text) == 1:
            self._one_word.add(line, "query", _quoted(query.text))
        self._see_scripts(example, line)

        asked = normalize_text(query.text or "")
        for index, side in enumerate(example.positives):
            name = f"positives[{index}]"
            self._see_text(side, line, name)
            if asked and side.image is None and normalize_text(side.text or "") == asked:
                self._answered.add(line, name)

        self._see_text(query, line, "query")
        for index, negative in enumerate(example.negatives):
            self._see_text(negative.side, line, f"negatives[{index}]")

    def doubts(self) -> Iterator[Doubt]:
        """As `Detector.doubts`."""
        rows, texts = self._rows, self._texts
        yield from found(
            "one-word",
            self._one_word,
            "query",
            rows,
            "Queries of one word hardly say what is asked for.",
        )
        yield from found(
            "query-as-positive",
            self._answered,
            "row",
            rows,
            "Positives that repeat their query teach to find copies.",
        )
        yield from found(
            "other-script",
            self._scripts,
            "row",
            rows,
            "Queries are in one script and all their positives in another: right for search across"
            " languages, wrong where columns were mixed up.",
        )
        yield from found(
            "damaged-text",
            self._damaged,
            "text",
            texts,
            "Texts were decoded wrongly somewhere: they have a replacement character, or two"
            " characters where one was meant.",
        )
        yield from found(
            "markup",
            self._markup,
            "text",
            texts,
            "Texts have HTML in them, which requests to the service will hardly have.",
        )
        yield from found(
            "hidden-characters",
            self._hidden,
            "text",
            texts,
            "Texts have characters that are not seen, or turn the direction of writing.",
        )
        yield from found(
            "long",
            self._long,
            "text",
            texts,
            f"Texts have more than {LONG_CHARACTERS:,} characters, about 3,200 tokens, the paper's"
            " bound of a pair: they will be cut (--model counts tokens).",
        )

    def _see_text(self, side: Side, line: int, name: str) -> None:
        text = side.text
        if text is None:
            return
        self._texts += 1
        for places, problem in (
            (self._damaged, damage(text)),
            (self._markup, markup(text)),
            (self._hidden, hidden(text)),
        ):
            if problem is not None:
                places.add(line, name, _quoted(problem))
        if self._estimates_tokens and len(text) > LONG_CHARACTERS:
            self._long.add(line, name, f"{len(text):,} characters")

    def _see_scripts(self, example: Example, line: int) -> None:
        asked = script_of(example.query.text or "")
        scripts = {script_of(side.text or "") for side in example.positives} - {None}
        if asked is not None and scripts and asked not in scripts:
            self._scripts.add(line, "query", f"{asked}, and {', '.join(sorted(map(str, scripts)))}")


def _quoted(text: str) -> str:
    return repr(text.strip()[:40])
