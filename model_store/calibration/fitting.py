"""The fit of a map from raw scores to probabilities: Platt's sigmoid, or isotonic regression.

Depends on numpy and scipy, not on networks. Weights of the classes move the odds of a map that was
fitted without them, so that a rare class does not make it less certain. Invariant: a fitted map is
non-decreasing, and its values are never nearer to 0 or 1 than the number of its pairs allows.

Sources: Platt, "Probabilistic outputs for support vector machines" (1999), for the sigmoid and its
smoothed targets; Oron and Flournoy, "Centered isotonic regression" (2017), for knots at the means
of blocks.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from model_store.calibration.description import (
    MAX_KNOTS,
    IsotonicMap,
    PlattMap,
    ProbabilityMap,
)
from model_store.calibration.judged_pairs import Floats, Integers, JudgedPairs
from model_store.calibration.measures import log_loss

FOLDS = 5
MAX_SLOPE = 1e6
MAX_SHIFT = 5e5
"""The greatest product of a slope and the mean score: an intercept holds it and the odds."""
_SMALLEST_SPREAD = 1e-6


def probabilities(fitted: ProbabilityMap, scores: Floats) -> Floats:
    """The probability of each raw score."""
    if isinstance(fitted, PlattMap):
        return np.asarray(expit(fitted.slope * scores + fitted.intercept), np.float64)
    return np.interp(scores, fitted.scores, fitted.probabilities)


def fit_platt(pairs: JudgedPairs) -> PlattMap:
    """The sigmoid of largest likelihood whose slope is not negative, for Platt's targets, which
    keep it finite where scores separate the classes; then moved by the weights of the classes."""
    positive, negative = int(pairs.relevant.sum()), int((~pairs.relevant).sum())
    targets = np.where(pairs.relevant, (positive + 1) / (positive + 2), 1 / (negative + 2))

    # standardised, so that one step length suits slope and intercept
    center, deviation = float(pairs.scores.mean()), float(pairs.scores.std())
    spread = max(deviation, _SMALLEST_SPREAD)
    steepest = min(MAX_SLOPE, MAX_SHIFT / max(abs(center), _SMALLEST_SPREAD))
    standard = (pairs.scores - center) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        values = parameters[0] * standard + parameters[1]
        losses = np.logaddexp(0, values) - targets * values
        residuals = expit(values) - targets
        return float(losses.mean()), np.array([(residuals * standard).mean(), residuals.mean()])

    # scores that are all equal leave the slope where it starts: at 0
    start = np.array([min(deviation / spread, steepest * spread), np.log(positive / negative)])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, steepest * spread), (-1e5, 1e5)]
    )
    slope = min(float(found.x[0]) / spread, steepest)
    intercept = float(found.x[1]) - slope * center
    return PlattMap(slope=slope, intercept=intercept + float(np.log(pairs.odds_ratio)))


def fit_isotonic(pairs: JudgedPairs) -> IsotonicMap:
    """Isotonic regression with a knot at the mean score of each block, at most `MAX_KNOTS`; then
    moved by the weights of the classes.

    Before that, probabilities are kept as far from 0 and 1 as one further pair of each class would
    put them.
    """
    values, place = np.unique(pairs.scores, return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    shares = np.bincount(place, pairs.relevant) / counts
    regression = isotonic_regression(shares, weights=counts)

    starts = _merged(regression.blocks[:-1], np.cumsum(counts))
    sizes = np.add.reduceat(counts, starts)
    scores = np.add.reduceat(counts * values, starts) / sizes
    means = np.add.reduceat(counts * regression.x, starts) / sizes

    least = 1 / (len(pairs.scores) + 2)
    means = np.clip(means, least, 1 - least)
    moved = pairs.odds_ratio * means / (pairs.odds_ratio * means + 1 - means)
    return _knots(scores, np.maximum.accumulate(moved))


def _merged(starts: Integers, pairs_until: Floats) -> Integers:
    """The starts of blocks, neighbours of which are merged where there are more than `MAX_KNOTS`,
    into parts of about as many pairs."""
    if len(starts) <= MAX_KNOTS:
        return starts
    before = np.concatenate([[0.0], pairs_until])[starts]
    part = np.floor(MAX_KNOTS * before / pairs_until[-1])
    return starts[np.unique(part, return_index=True)[1]]


def _knots(scores: Floats, means: Floats) -> IsotonicMap:
    """A map of knots; of knots whose mean scores are equal by rounding, the last is kept."""
    rises = np.append(np.diff(scores) > 0, True)
    return IsotonicMap(
        scores=tuple(scores[rises].tolist()), probabilities=tuple(means[rises].tolist())
    )


def held_out_probabilities(pairs: JudgedPairs, seed: int) -> tuple[Floats, Floats]:
    """Probabilities of every pair by Platt's sigmoid and by isotonic regression, each from maps
    that were fitted without its query.

    Queries with a relevant and an irrelevant pair, and those with one class alone, are divided
    evenly over `FOLDS`. Each class must have more queries than a fold may hold.
    """
    fold = _folds(pairs, seed)[pairs.queries]
    platt, isotonic = np.empty(len(fold)), np.empty(len(fold))
    for number in range(FOLDS):
        held_out = fold == number
        rest = pairs.chosen(~held_out)
        platt[held_out] = probabilities(fit_platt(rest), pairs.scores[held_out])
        isotonic[held_out] = probabilities(fit_isotonic(rest), pairs.scores[held_out])
    return platt, isotonic


def _folds(pairs: JudgedPairs, seed: int) -> Integers:
    """The fold of each query."""
    count = pairs.count_queries
    has_relevant = np.bincount(pairs.queries, pairs.relevant, count) > 0
    has_irrelevant = np.bincount(pairs.queries, ~pairs.relevant, count) > 0

    order = np.random.default_rng(seed).permutation(count)
    by_kind = order[np.argsort((2 * has_relevant + has_irrelevant)[order], kind="stable")]
    folds = np.empty(count, np.int64)
    folds[by_kind] = np.arange(count) % FOLDS
    return folds


def choose(
    pairs: JudgedPairs, platt: Floats, isotonic: Floats, unfitted: PlattMap | None = None
) -> tuple[ProbabilityMap, Floats]:
    """The map with the smallest held-out log loss, fitted to all pairs, and its held-out
    probabilities.

    Of equal losses, `unfitted` comes first (the model's own sigmoid, which needs no pairs), then
    Platt's map, which has two numbers.
    """
    best = min((log_loss(platt, pairs), 1), (log_loss(isotonic, pairs), 2))
    if unfitted is not None:
        own = probabilities(unfitted, pairs.scores)
        if log_loss(own, pairs) <= best[0]:
            return unfitted, own
    return (fit_platt(pairs), platt) if best[1] == 1 else (fit_isotonic(pairs), isotonic)
