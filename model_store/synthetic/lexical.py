"""Text queries whose words occur in a passage, and passages that are near misses for them.

Knows the texts and BM25, nothing of pictures or models.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from random import Random

from model_store.synthetic.examples import Side
from model_store.synthetic.texts import Split, character_names, passages, words

_TERM = re.compile(r"[a-z0-9]+")
STOPWORDS = frozenset((
    "a", "about", "above", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be",
    "been", "before", "being", "below", "between", "both", "but", "by", "can", "cannot", "could",
    "did", "do", "does", "doing", "down", "during", "each", "else", "few", "for", "from",
    "further", "had", "has", "have", "having", "he", "her", "here", "him", "his", "how", "i", "if",
    "in", "into", "is", "it", "its", "itself", "just", "may", "me", "might", "more", "most",
    "must", "my", "no", "nor", "not", "now", "of", "off", "on", "once", "one", "only", "or",
    "other", "our", "out", "over", "own", "same", "she", "should", "so", "some", "such", "than",
    "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "through",
    "to", "too", "two", "under", "until", "up", "upon", "very", "via", "was", "we", "were", "what",
    "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will", "with",
    "within", "without", "would", "you", "your", "used", "using", "use",
))  # fmt: skip
_QUESTIONS = (
    "{}", "{}", "{}", "what is {}?", "how does {} work", "where can I find {}", "tell me about {}",
    "What about {}?", "why {}", "explain {}", "{} please", "I am looking for {}",
    "Which one says {}?", "how to {}", "Is there something on {}?",
)  # fmt: skip


def terms(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return _TERM.findall(text.lower())


def content_terms(text: str) -> list[str]:
    """The terms that say something: no stop words, three letters or more, each once, in order."""
    return list(
        dict.fromkeys(term for term in terms(text) if term not in STOPWORDS and len(term) >= 3)
    )


class Bm25:
    """Okapi BM25 (k1 = 1.2, b = 0.75) over a fixed collection."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        lengths = [sum(count.values()) for count in counts]
        average = sum(lengths) / max(len(lengths), 1)
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, times in count.items():
                weight = times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / average))
                self._postings[term].append((place, weight))
        self._idf = {
            term: math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            for term, found in self._postings.items()
        }

    def idf(self, term: str) -> float:
        return self._idf.get(term, 0.0)

    def scores(self, query: str) -> dict[int, float]:
        """Score of every text that shares a term with the query, by its place in the collection."""
        found: dict[int, float] = defaultdict(float)
        for term in set(terms(query)):
            for place, weight in self._postings.get(term, ()):
                found[place] += self._idf[term] * weight
        return dict(found)


@cache
def index(split: Split) -> Bm25:
    """BM25 over the passages of one part."""
    return Bm25(passages(split))


def passages_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over the library's English: half the irrelevant ones are BM25's nearest misses."""
    texts, bm25 = passages(split), index(split)
    while True:
        place = rng.randrange(len(texts))
        asked = _ask(texts[place], bm25, rng)
        ranked = sorted(
            bm25.scores(" ".join(asked)).items(), key=lambda found: (-found[1], found[0])
        )
        near = [
            other
            for other, _ in ranked[:60]
            if other != place and not _answers(texts[other], asked)
        ]
        if near or len(asked) == 1:
            break
    hard = rng.sample(near[:40], min(len(near), 40, negatives // 2))
    taken = {place, *hard}
    while len(taken) < negatives + 1:
        other = rng.randrange(len(texts))
        if other not in taken and not _answers(texts[other], asked):
            taken.add(other)
            hard.append(other)
    return (_phrase(asked, rng),), [(texts[other],) for other in (place, *hard)]


def _ask(text: str, bm25: Bm25, rng: Random) -> list[str]:
    """One to six content terms of a text, the rarer the likelier, or a run of its words."""
    known = content_terms(text)
    count = min(len(known), rng.choice((1, 2, 2, 3, 3, 4, 5, 6)))
    if rng.random() < 0.3:
        start = rng.randrange(len(known) - count + 1)
        return known[start : start + count]
    by_rarity = sorted(known, key=lambda term: -bm25.idf(term) * rng.uniform(0.4, 1.0))
    chosen = by_rarity[:count]
    rng.shuffle(chosen)
    return chosen


def _answers(text: str, asked: Iterable[str]) -> bool:
    return set(asked) <= set(terms(text))


def words_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over lists of unrelated words, invented ones too: only the words can tell."""
    vocabulary = words()
    used: set[str] = set()

    def fresh() -> str:
        while True:
            word = _invented(rng) if rng.random() < 0.25 else rng.choice(vocabulary)
            if word not in used:
                used.add(word)
                return word

    documents = [[fresh() for _ in range(rng.randint(3, 14))] for _ in range(negatives + 1)]
    asked = rng.sample(documents[0], min(len(documents[0]), rng.choice((1, 1, 2, 2, 3, 4))))
    for near in documents[1 : 1 + negatives // 2]:
        if len(asked) > 1:  # a near miss has some of the words, never all
            near[: len(asked) - 1] = rng.sample(asked, rng.randint(1, len(asked) - 1))
            rng.shuffle(near)
    return (_phrase(asked, rng),), [(_listing(document, rng),) for document in documents]


def names_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over character names such as "steaming bowl"."""
    names = character_names()
    while True:
        chosen = rng.sample(names, 1 + negatives)
        asked = rng.sample(
            content_terms(chosen[0]), min(len(content_terms(chosen[0])), rng.randint(1, 3))
        )
        if asked and not any(_answers(name, asked) for name in chosen[1:]):
            return (_phrase(asked, rng),), [(_listing(name.split(), rng),) for name in chosen]


def _phrase(asked: Sequence[str], rng: Random) -> str:
    query = rng.choice(_QUESTIONS).format(" ".join(asked))
    style = rng.random()
    return (
        query.capitalize()
        if style < 0.25
        else query.title()
        if style < 0.32
        else query.upper()
        if style < 0.35
        else query
    )


def _listing(chosen: Sequence[str], rng: Random) -> str:
    text = rng.choice((" ", " ", ", ", " and the ", " of ")).join(chosen)
    text = rng.choice(("{}", "{}", "The {}.", "A {}", "about {}", "This is a {}.")).format(text)
    style = rng.random()
    return text.capitalize() if style < 0.3 else text.title() if style < 0.4 else text


def _invented(rng: Random) -> str:
    return "".join(
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4))
    ) + rng.choice(("", "n", "r", "x", "k", "st"))
