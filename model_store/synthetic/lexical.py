"""Text queries with words of a passage, and passages that are near misses for them: the cell T-T.

Does not depend on pictures or models. Invariant: the relevant document alone has all words of its
query.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
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
    """The terms that are no stop words and have three letters or more, each once, in order."""
    content = [term for term in terms(text) if term not in STOPWORDS and len(term) >= 3]
    return list(dict.fromkeys(content))


def question_forms() -> tuple[str, ...]:
    """The forms of a query, without the terms that stand in them."""
    return tuple(form.replace("{}", "").strip() for form in _QUESTIONS)


class PassageIndex:
    """Okapi BM25 (k1 = 1.2, b = 0.75) over a fixed collection of texts.

    gmr-tiny's data depends on the last bit of its scores, so no library's BM25 can replace it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        lengths = [sum(count.values()) for count in counts]
        average = sum(lengths) / max(len(lengths), 1)

        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            for term, frequency in count.items():
                weight = frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / average))
                self._postings[term].append((number, weight))

        self._idf = {
            term: math.log(1 + (len(texts) - len(postings) + 0.5) / (len(postings) + 0.5))
            for term, postings in self._postings.items()
        }

    def idf(self, term: str) -> float:
        """A term's inverse document frequency; 0 for a term that no text has."""
        return self._idf.get(term, 0.0)

    def scores(self, query: str) -> dict[int, float]:
        """The scores of the texts that share a term with the query, by number in the collection."""
        scores: dict[int, float] = defaultdict(float)
        for term in sorted(set(terms(query))):  # a sum depends on its order, in the last bit
            for number, weight in self._postings.get(term, ()):
                scores[number] += self._idf[term] * weight
        return dict(scores)


@cache
def index(split: Split) -> PassageIndex:
    """The index over the passages of one split."""
    return PassageIndex(passages(split))


def passages_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over English passages; half of the irrelevant ones are the highest in BM25's
    ranking."""
    texts, bm25 = passages(split), index(split)
    while True:
        relevant = rng.randrange(len(texts))
        query = _draw_terms(texts[relevant], bm25, rng)
        near = _near_misses(texts, bm25, relevant, query)
        if near or len(query) == 1:
            break

    irrelevant = rng.sample(near[:40], min(len(near), 40, negatives // 2))
    taken = {relevant, *irrelevant}
    while len(taken) < negatives + 1:
        number = rng.randrange(len(texts))
        if number not in taken and not _has_all(texts[number], query):
            taken.add(number)
            irrelevant.append(number)
    return (_phrase(query, rng),), [(texts[number],) for number in (relevant, *irrelevant)]


def _near_misses(
    texts: Sequence[str], bm25: PassageIndex, relevant: int, query: Sequence[str]
) -> list[int]:
    """Numbers of the best texts by BM25, without those that have all terms of the query."""
    scores = bm25.scores(" ".join(query))
    ranking = sorted(scores, key=lambda number: (-scores[number], number))
    return [
        number
        for number in ranking[:60]
        if number != relevant and not _has_all(texts[number], query)
    ]


def _draw_terms(text: str, bm25: PassageIndex, rng: Random) -> list[str]:
    """One to six content terms of a text: a run of them, or single ones, where rare terms are more
    likely."""
    known = content_terms(text)
    count = min(len(known), rng.choice((1, 2, 2, 3, 3, 4, 5, 6)))
    if rng.random() < 0.3:
        start = rng.randrange(len(known) - count + 1)
        return known[start : start + count]

    by_rarity = sorted(known, key=lambda term: -bm25.idf(term) * rng.uniform(0.4, 1.0))
    chosen = by_rarity[:count]
    rng.shuffle(chosen)
    return chosen


def _has_all(text: str, query: Iterable[str]) -> bool:
    return set(query) <= set(terms(text))


def words_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over lists of unrelated words, some of them invented.

    Only the words themselves can be matched: no text has a meaning.
    """
    fresh = _fresh_words(rng)
    documents = []
    for _ in range(negatives + 1):
        length = rng.randint(3, 14)
        documents.append(list(islice(fresh, length)))

    query = rng.sample(documents[0], min(len(documents[0]), rng.choice((1, 1, 2, 2, 3, 4))))
    for near_miss in documents[1 : 1 + negatives // 2]:
        if len(query) > 1:  # a near miss has some of the words, never all
            near_miss[: len(query) - 1] = rng.sample(query, rng.randint(1, len(query) - 1))
            rng.shuffle(near_miss)
    return (_phrase(query, rng),), [(_listing(document, rng),) for document in documents]


def _fresh_words(rng: Random) -> Iterator[str]:
    """Random words, none of them twice."""
    vocabulary = words()
    used: set[str] = set()
    while True:
        word = _invented_word(rng) if rng.random() < 0.25 else rng.choice(vocabulary)
        if word not in used:
            used.add(word)
            yield word


def names_task(rng: Random, split: Split, negatives: int) -> tuple[Side, list[Side]]:
    """Queries over character names, such as "steaming bowl"."""
    names = character_names()
    while True:
        chosen = rng.sample(names, 1 + negatives)
        known = content_terms(chosen[0])
        query = rng.sample(known, min(len(known), rng.randint(1, 3)))
        if query and not any(_has_all(name, query) for name in chosen[1:]):
            break
    return (_phrase(query, rng),), [(_listing(name.split(), rng),) for name in chosen]


def _phrase(query: Sequence[str], rng: Random) -> str:
    """Terms as a question or bare, in some letter case."""
    text = rng.choice(_QUESTIONS).format(" ".join(query))
    style = rng.random()
    if style < 0.25:
        return text.capitalize()
    if style < 0.32:
        return text.title()
    if style < 0.35:
        return text.upper()
    return text


def _listing(chosen: Sequence[str], rng: Random) -> str:
    """Words as a list or a phrase, in some letter case."""
    text = rng.choice((" ", " ", ", ", " and the ", " of ")).join(chosen)
    text = rng.choice(("{}", "{}", "The {}.", "A {}", "about {}", "This is a {}.")).format(text)
    style = rng.random()
    if style < 0.3:
        return text.capitalize()
    if style < 0.4:
        return text.title()
    return text


def _invented_word(rng: Random) -> str:
    syllables = [
        rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4))
    ]
    return "".join(syllables) + rng.choice(("", "n", "r", "x", "k", "st"))
