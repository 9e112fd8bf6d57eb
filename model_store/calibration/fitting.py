"""The fit of a map from raw scores to probabilities: Platt's sigmoid, or isotonic regression.

Depends on numpy and scipy, not on networks. Invariant: a fitted map is non-decreasing, and its
values are never nearer to 0 or 1 than the number of its pairs allows.

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
_SMALLEST_SPREAD = 1e-6


def probabilities(fitted: ProbabilityMap, scores: Floats) -> Floats:
    """The probability of each raw score."""
    if isinstance(fitted, PlattMap):
        return np.asarray(expit(fitted.slope * scores + fitted.intercept), np.float64)
    return np.interp(scores, fitted.scores, fitted.probabilities)


def fit_platt(pairs: JudgedPairs) -> PlattMap:
    """The sigmoid of largest likelihood whose slope is not negative, for Platt's targets, which
    keep it finite where scores separate the classes."""
    positive = float(pairs.weights[pairs.relevant].sum())
    negative = float(pairs.weights[~pairs.relevant].sum())
    targets = np.where(pairs.relevant, (positive + 1) / (positive + 2), 1 / (negative + 2))
    total = pairs.weights.sum()

    # standardised, so that one step length suits slope and intercept
    center = float(np.average(pairs.scores, weights=pairs.weights))
    spread = float(np.sqrt(np.average((pairs.scores - center) ** 2, weights=pairs.weights)))
    spread = max(spread, _SMALLEST_SPREAD)
    standard = (pairs.scores - center) / spread

    def loss(parameters: Floats) -> tuple[float, Floats]:
        values = parameters[0] * standard + parameters[1]
        losses = np.logaddexp(0, values) - targets * values
        residuals = pairs.weights * (expit(values) - targets)
        gradient = np.array([residuals @ standard, residuals.sum()])
        return float(pairs.weights @ losses) / total, gradient / total

    start = np.array([1.0, np.log(positive / negative)])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(0, MAX_SLOPE * spread), (-1e5, 1e5)]
    )
    slope = min(float(found.x[0]) / spread, MAX_SLOPE)
    return PlattMap(slope=slope, intercept=float(found.x[1]) - slope * center)


def fit_isotonic(pairs: JudgedPairs) -> IsotonicMap:
    """Isotonic regression with a knot at the mean score of each block, at most `MAX_KNOTS`.

    Probabilities are kept as far from 0 and 1 as one further pair of each class would put them.
    """
    values, place = np.unique(pairs.scores, return_inverse=True)
    weights = np.bincount(place, pairs.weights)
    shares = np.bincount(place, pairs.weights * pairs.relevant) / weights
    regression = isotonic_regression(shares, weights=weights)

    starts = _merged(regression.blocks[:-1], np.cumsum(weights))
    block_weights = np.add.reduceat(weights, starts)
    scores = np.add.reduceat(weights * values, starts) / block_weights
    means = np.add.reduceat(weights * regression.x, starts) / block_weights

    least = 1 / (float(weights.sum()) + 2)
    means = np.maximum.accumulate(np.clip(means, least, 1 - least))
    return _knots(scores, means)


def _merged(starts: Integers, weights_until: Floats) -> Integers:
    """The starts of blocks, neighbours of which are merged where there are more than `MAX_KNOTS`,
    into parts of about equal weight."""
    if len(starts) <= MAX_KNOTS:
        return starts
    before = np.concatenate([[0.0], weights_until])[starts]
    part = np.floor(MAX_KNOTS * before / weights_until[-1])
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


def choose(pairs: JudgedPairs, platt: Floats, isotonic: Floats) -> tuple[ProbabilityMap, Floats]:
    """The kind of map with the smaller held-out log loss, fitted to all pairs, and its held-out
    probabilities; Platt's of equals, which has two numbers."""
    if log_loss(isotonic, pairs) < log_loss(platt, pairs):
        return fit_isotonic(pairs), isotonic
    return fit_platt(pairs), platt
