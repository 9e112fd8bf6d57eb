"""Groups to learn from: a query, its relevant document, and others, with the teacher's scores.

Depends on passages and the teacher's vectors, not on a network. Invariant: no text of a held-out
document, and no question about one, is in a group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from model_store.recipes.mini.sources.passages import Passage
from model_store.recipes.mini.texts.vectors import TextVectors, Vectors
from model_store.retrieval.found import best
from model_store.retrieval.words import WordIndex
from model_store.synthetic import cells
from model_store.training.data.identity import normalize_text
from model_store.training.data.rows import Example, Negative, Side

DOCUMENTS = 12
SHARPNESS, MIDDLE = 20.0, 0.4
"""A row's score is SHARPNESS (cosine - MIDDLE): about the logits that the network is to have."""
SHARES = {
    "wordnet-base": 4.0, "python3.11-doc": 5.0, "manpages-dev": 3.0, "manpages": 2.0,
    "coreutils": 2.0, "findutils": 0.2, "tar": 0.2, "util-linux": 1.5, "git-man": 2.0,
    "perl-doc": 4.0, "debian-faq": 1.0, "debian-reference-en": 2.0, "postgresql-doc-15": 3.0,
    "dict-foldoc": 2.5, "dict-jargon": 1.0,
}  # fmt: skip
"""How often a source is asked; sources that teach more about questions are asked more often."""

_SENTENCE = 0.3
"""The share of groups whose query is a sentence of a passage, and whose documents are others."""
_WORDS = 0.12  # of groups of a definition and words
_BY_WORDS, _BY_MEANING, _SAME_SOURCE = 3, 4, 3
_NEAREST = 40


@dataclass(frozen=True, slots=True)
class Group:
    """A query and its documents, the relevant one first, with the teacher's cosines."""

    query: str
    documents: tuple[str, ...]
    cosines: tuple[float, ...]


def texts_to_encode(passages: Sequence[Passage]) -> Iterator[str]:
    """Every text that a group may have."""
    for passage in passages:
        yield passage.text
        yield from passage.questions
        yield sentence(passage)
        if passage.source == "wordnet-base":
            yield words(passage)


def sentence(passage: Passage) -> str:
    """A passage's first sentence, without the name that it begins with."""
    _, _, named = passage.text.rpartition(": ") if ": " in passage.text[:40] else ("", "", "")
    text = named or passage.text
    return text.split(". ", 1)[0][:160]


def words(passage: Passage) -> str:
    """The words that a sense is a meaning of."""
    return passage.text.split(":", 1)[0]


class Mining:
    """Groups of the passages that are not held out."""

    def __init__(self, passages: Sequence[Passage], vectors: TextVectors) -> None:
        held: set[str] = set()
        for passage in passages:
            if passage.held_out:
                held.update(_plain(text) for text in (passage.text, *passage.questions))
                held.add(_plain(sentence(passage)))

        self._passages = [
            passage
            for passage in passages
            if not passage.held_out and _plain(passage.text) not in held
        ]
        self._held = held
        self._vectors = vectors
        self._texts = [passage.text for passage in self._passages]
        self._matrix = vectors.of(self._texts)
        self._index = WordIndex(self._texts)
        self._of_source: dict[str, list[int]] = defaultdict(list)
        self._asked: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self._passages):
            self._of_source[passage.source].append(number)
            if any(_plain(question) not in held for question in passage.questions):
                self._asked[passage.source].append(number)
        self._senses = self._of_source.get("wordnet-base", [])

    def groups(self, count: int, seed: int) -> Iterator[Group]:
        """`count` groups; a seed decides them."""
        rng = Random(f"groups/{seed}")
        made = 0
        while made < count:
            draw = rng.random()
            if draw < _SENTENCE:
                group = self._of_sentence(rng)
            elif draw < _SENTENCE + _WORDS and len(self._senses) >= DOCUMENTS:
                group = self._of_definition(rng)
            else:
                group = self._of_question(rng)
            if group is not None:
                made += 1
                yield group

    def _of_question(self, rng: Random) -> Group | None:
        sources = [source for source in self._asked if SHARES.get(source, 1.0)]
        shares = [SHARES.get(source, 1.0) for source in sources]
        (source,) = rng.choices(sources, shares)
        relevant = rng.choice(self._asked[source])
        questions = [
            question
            for question in self._passages[relevant].questions
            if _plain(question) not in self._held
        ]
        query = rng.choice(questions)
        return self._group(query, relevant, self._similar(query), rng)

    def _of_sentence(self, rng: Random) -> Group | None:
        """A sentence as the query; its own passage is no candidate, and the teacher's nearest one
        counts as relevant."""
        own = rng.randrange(len(self._passages))
        query = sentence(self._passages[own])
        if len(query.split()) < 4 or _plain(query) in self._held:
            return None
        similar = self._similar(query)
        similar[own] = -1.0
        return self._group(query, int(similar.argmax()), similar, rng, left_out=own)

    def _of_definition(self, rng: Random) -> Group | None:
        relevant = rng.choice(self._senses)
        query = self._passages[relevant].questions[-1]
        if _plain(query) in self._held or len(query.split()) < 3:
            return None

        similar = self._similar(query)[self._senses]
        found = best(np.arange(len(similar)), similar, _NEAREST).numbers
        near = [self._senses[number] for number in found]
        others = [*rng.sample(near, min(5, len(near))), *rng.sample(self._senses, DOCUMENTS)]
        texts = [words(self._passages[number]) for number in (relevant, *others)]
        texts = _distinct(texts)[:DOCUMENTS]
        if len(texts) < DOCUMENTS:
            return None
        cosines = self._vectors.of(texts) @ self._vectors.of([query])[0]
        return Group(query, tuple(texts), tuple(map(float, cosines)))

    def _group(
        self,
        query: str,
        relevant: int,
        similar: Vectors,
        rng: Random,
        left_out: int = -1,
    ) -> Group | None:
        """The relevant passage, near ones by words and by meaning, and random ones."""
        found = self._index.search(query, _NEAREST).numbers.tolist()
        nearest = best(np.arange(len(similar)), similar, _NEAREST).numbers.tolist()
        source = self._of_source[self._passages[relevant].source]
        others = [
            *rng.sample(found, min(_BY_WORDS, len(found))),
            *rng.sample(nearest, min(_BY_MEANING, len(nearest))),
            *rng.sample(source, min(_SAME_SOURCE, len(source))),
            *rng.sample(range(len(self._passages)), min(2 * DOCUMENTS, len(self._passages))),
        ]
        scores = {
            self._texts[number]: float(similar[number])
            for number in (relevant, *others)
            if number != left_out
        }
        texts = _distinct(scores)[:DOCUMENTS]
        if len(texts) < DOCUMENTS:
            return None
        return Group(query, tuple(texts), tuple(scores[text] for text in texts))

    def _similar(self, query: str) -> Vectors:
        similar: Vectors = self._matrix @ self._vectors.of([query])[0]
        return similar


def as_row(group: Group, number: int, rng: Random) -> Example:
    """A group as `gmr train` reads it; seven of ten have the family's own instruction."""
    instruction = None if rng.random() < 0.7 else rng.choice(list(cells.INSTRUCTIONS.values()))
    first, *others = group.documents
    return Example(
        id=f"texts/{number}",
        instruction=instruction,
        query=Side(group.query, None),
        positives=(Side(first, None),),
        negatives=tuple(Negative(Side(text, None), "hard") for text in others),
        location="",
        teacher_scores=tuple(SHARPNESS * (cosine - MIDDLE) for cosine in group.cosines),
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    """The first of texts that differ in case, punctuation or spaces alone."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(normalize_text(text), text)
    return list(found.values())


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
