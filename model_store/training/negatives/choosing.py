"""The choice of negatives among candidates (paper, appendix C.3): a seeded, random k of those that
are not relevant.

Depends on contents and scores, not on a library. A candidate is read only when it is drawn, since
most of a hundred are not. Invariant: no negative has the content of the query, of a positive, or of
another negative; the same example, candidates and seed give the same negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from model_store.errors import WrongUsage
from model_store.retrieval.found import Found
from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Example, Negative

_DRAWS_A_RANDOM = 4
_MORE_DRAWS = 64


@dataclass(frozen=True, slots=True)
class Band:
    """Ranks of a retriever, from 1, the last one included, and the negatives drawn from them."""

    first: int
    last: int
    count: int


@dataclass(frozen=True, slots=True)
class Rules:
    """Negatives of each kind, candidates, and the margin between a candidate's score and that of a
    positive.

    `absolute` is a distance; `relative` a share of the positive's score. None: no margin, as in the
    paper.
    """

    hard: int = 8
    random: int = 8
    top: int = 100
    absolute: float | None = None
    relative: float | None = None
    seed: int = 0
    bands: tuple[Band, ...] = ()
    """Ranks that hard negatives are drawn from, as ERank's are; their counts add up to `hard`."""

    @property
    def guarded(self) -> bool:
        """True where candidates must keep a margin."""
        return self.absolute is not None or self.relative is not None

    @property
    def searches(self) -> bool:
        """True where the corpus is searched: for hard negatives, or for scores to compare."""
        return self.hard > 0 or self.guarded


def check_rules(rules: Rules, retriever: str) -> None:
    """Raise `WrongUsage` for rules without any negative, or that the retriever cannot serve."""
    if not rules.hard and not rules.random:
        raise WrongUsage("--hard 0 and --random 0 ask for no negative at all.")
    if retriever == "none" and rules.searches:
        raise WrongUsage("--retriever none finds nothing: it needs --hard 0, and no margin.")


@dataclass(slots=True)
class Chosen:
    """An example's negatives, the scores of the hard ones, and the candidates dropped by reason."""

    negatives: list[Negative] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    too_relevant: int = 0
    random_too_relevant: int = 0
    relevant: int = 0
    copies: int = 0


def ceiling(rules: Rules, positives: Iterable[float | None]) -> float | None:
    """The highest score of a negative: a margin below the positive that scores least; None without
    a margin."""
    scores = [score for score in positives if score is not None]
    if not rules.guarded or not scores:
        return None

    least = min(scores)
    limits: list[float] = []
    if rules.absolute is not None:
        limits.append(least - rules.absolute)
    if rules.relative is not None:
        limits.append(least - abs(least) * rules.relative)

    return min(limits)


Scores = Callable[[Sequence[int]], Sequence[float | None]]
"""From numbers of documents in the corpus to their scores, None for one without."""


def choose(
    example: Example,
    corpus: Corpus,
    found: Found,
    limit: float | None,
    rules: Rules,
    *,
    kept: bool = False,
    scores: Scores = lambda numbers: [None] * len(numbers),
) -> Chosen:
    """New negatives, hard ones first; fewer where the candidates do not suffice.

    `limit` is that of `ceiling`. It holds for random negatives too, whose `scores` are computed.
    With `kept`, the example's own negatives stay, and none of them is chosen again.
    """
    chosen = Chosen()
    generator = Random(f"{rules.seed}/{example.id}")
    relevant = {content_key(side) for side in (example.query, *example.positives)}
    taken = set(relevant)
    if kept:
        taken |= {content_key(negative.side) for negative in example.negatives}

    for band in rules.bands or (Band(1, rules.top, rules.hard),):
        candidates = _candidates(chosen, found, limit, band, generator)
        _add_hard(chosen, corpus, candidates, relevant, taken, band.count)

    draws = min(rules.random * _DRAWS_A_RANDOM + _MORE_DRAWS, len(corpus)) if rules.random else 0
    drawn = generator.sample(range(len(corpus)), draws)
    above = set() if limit is None else _above(limit, drawn, scores)
    _add_random(chosen, corpus, taken, drawn, above, rules.random)
    return chosen


def _candidates(
    chosen: Chosen, found: Found, limit: float | None, band: Band, generator: Random
) -> list[tuple[int, float]]:
    """(number, score) of a band's candidates within the limit, in random order."""
    ranks = slice(band.first - 1, band.last)
    numbers, scores = found.numbers[ranks].tolist(), found.scores[ranks].tolist()
    candidates = list(zip(numbers, scores, strict=True))
    if limit is not None:
        below = [(number, score) for number, score in candidates if score <= limit]
        chosen.too_relevant += len(candidates) - len(below)
        candidates = below
    generator.shuffle(candidates)
    return candidates


def _add_hard(
    chosen: Chosen,
    corpus: Corpus,
    candidates: Sequence[tuple[int, float]],
    relevant: set[bytes],
    taken: set[bytes],
    most: int,
) -> None:
    wanted = len(chosen.negatives) + most
    for number, score in candidates:
        if len(chosen.negatives) == wanted:
            return
        side = corpus[number].side
        key = content_key(side)
        if key in relevant:
            chosen.relevant += 1
        elif key in taken:
            chosen.copies += 1
        else:
            taken.add(key)
            chosen.negatives.append(Negative(side, "hard"))
            chosen.scores.append(score)


def _above(limit: float, numbers: Sequence[int], scores: Scores) -> set[int]:
    """Numbers of documents that score too much for a negative."""
    pairs = zip(numbers, scores(numbers), strict=True)
    return {number for number, score in pairs if score is not None and score > limit}


def _add_random(
    chosen: Chosen,
    corpus: Corpus,
    taken: set[bytes],
    drawn: Sequence[int],
    above: set[int],
    most: int,
) -> None:
    wanted = len(chosen.negatives) + most
    for number in drawn:
        if len(chosen.negatives) == wanted:
            return
        if number in above:
            chosen.random_too_relevant += 1
            continue
        side = corpus[number].side
        key = content_key(side)
        if key not in taken:
            taken.add(key)
            chosen.negatives.append(Negative(side, "random"))
