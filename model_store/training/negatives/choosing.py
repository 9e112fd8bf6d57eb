"""Which candidates become negatives (paper, appendix C.3): seeded, random k of those that are not
relevant.

Knows contents and scores, no library. A candidate is looked at only when it is drawn: most of a
hundred need not be read. Invariant: no negative has the content of the query, of a positive, or of
another negative; the same example, candidates and seed give the same negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.rows import Example, Negative, WrongUsage
from model_store.training.negatives.retrievers import Found

_DRAWS_A_RANDOM = 4
_MORE_DRAWS = 64


@dataclass(frozen=True, slots=True)
class Rules:
    """How many of each kind, of how many candidates, and how far below a positive's score a
    candidate must stay.

    `absolute` is a distance; `relative` a share of the positive's score. None: no guard, as in the
    paper.
    """

    hard: int = 8
    random: int = 8
    top: int = 100
    absolute: float | None = None
    relative: float | None = None
    seed: int = 0

    @property
    def guarded(self) -> bool:
        return self.absolute is not None or self.relative is not None

    @property
    def searches(self) -> bool:
        """Whether the corpus is searched: for hard negatives, or to score what a margin is kept
        from."""
        return self.hard > 0 or self.guarded


def check_rules(rules: Rules, retriever: str) -> None:
    """Raise `WrongUsage` where the rules ask for nothing, or for what a retriever cannot give."""
    if not rules.hard and not rules.random:
        raise WrongUsage("--hard 0 and --random 0 ask for no negative at all.")
    if retriever == "none" and rules.searches:
        raise WrongUsage("--retriever none finds nothing: it needs --hard 0, and no margin.")


@dataclass(slots=True)
class Chosen:
    """An example's negatives, the scores of the hard ones, and what was dropped on the way."""

    negatives: list[Negative] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    too_relevant: int = 0
    random_too_relevant: int = 0
    relevant: int = 0
    copies: int = 0


def ceiling(rules: Rules, positives: Iterable[float | None]) -> float | None:
    """The highest score a negative may have: a margin below the positive that scores least; None
    where there is no guard."""
    scores = [score for score in positives if score is not None]
    if not rules.guarded or not scores:
        return None
    least = min(scores)
    limits = [] if rules.absolute is None else [least - rules.absolute]
    limits += [] if rules.relative is None else [least - abs(least) * rules.relative]
    return min(limits)


Scores = Callable[[Sequence[int]], Sequence[float | None]]
"""From places in the corpus to the scores of the documents there, None for one that has none."""


def choose(
    example: Example,
    corpus: Corpus,
    found: Found,
    limit: float | None,
    rules: Rules,
    *,
    kept: bool = False,
    scores: Scores = lambda places: [None] * len(places),
) -> Chosen:
    """New negatives, hard ones first; fewer where there are not enough. `limit` is `ceiling`'s.

    It holds for random ones too, whose `scores` are asked for. `kept`: the example's own negatives
    stay, so none of them is given again.
    """
    chosen = Chosen()
    generator = Random(f"{rules.seed}/{example.id}")
    known = {content_key(side) for side in (example.query, *example.positives)}
    taken = set(known)
    taken |= {content_key(negative.side) for negative in example.negatives} if kept else set()
    candidates = list(
        zip(found.places[: rules.top].tolist(), found.scores[: rules.top].tolist(), strict=True)
    )
    if limit is not None:
        below = [(place, score) for place, score in candidates if score <= limit]
        chosen.too_relevant = len(candidates) - len(below)
        candidates = below
    generator.shuffle(candidates)
    for place, score in candidates:
        if len(chosen.negatives) == rules.hard:
            break
        side = corpus[place].side
        if (key := content_key(side)) in taken:
            chosen.relevant += key in known
            chosen.copies += key not in known
            continue
        taken.add(key)
        chosen.negatives.append(Negative(side, "hard"))
        chosen.scores.append(score)
    draws = min(rules.random * _DRAWS_A_RANDOM + _MORE_DRAWS, len(corpus)) if rules.random else 0
    drawn = generator.sample(range(len(corpus)), draws)
    above = set() if limit is None else _above(limit, drawn, scores)
    _add_random(chosen, corpus, taken, drawn, above, rules.random)
    return chosen


def _above(limit: float, places: Sequence[int], scores: Scores) -> set[int]:
    """The places whose documents score too much for a negative."""
    pairs = zip(places, scores(places), strict=True)
    return {place for place, score in pairs if score is not None and score > limit}


def _add_random(
    chosen: Chosen,
    corpus: Corpus,
    taken: set[bytes],
    drawn: Sequence[int],
    above: set[int],
    most: int,
) -> None:
    wanted = len(chosen.negatives) + most
    for place in drawn:
        if len(chosen.negatives) == wanted:
            return
        if place in above:
            chosen.random_too_relevant += 1
            continue
        side = corpus[place].side
        if (key := content_key(side)) not in taken:
            taken.add(key)
            chosen.negatives.append(Negative(side, "random"))
