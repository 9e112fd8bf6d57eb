"""Errors of probabilities on judged pairs: log loss, and the expected calibration error.

Depends on numpy alone. Invariant: queries, not pairs, are drawn again for an interval, since pairs
of one query depend on each other.

Source: Guo et al., "On calibration of modern neural networks" (2017), for the expected calibration
error over bins of equal width.
"""

from __future__ import annotations

import numpy as np

from model_store.calibration.description import BINS, Bin, Errors
from model_store.calibration.judged_pairs import Floats, Integers, JudgedPairs

RESAMPLES = 1000
_LEVEL = 0.95
_SMALLEST = 1e-15
_DRAWN_AT_ONCE = 2**22
"""Numbers that one step of the bootstrap holds."""


def log_loss(probabilities: Floats, pairs: JudgedPairs) -> float:
    """The mean negative logarithm of the judgements' probabilities, in nats."""
    right = np.where(pairs.relevant, probabilities, 1 - probabilities)
    return float(np.average(-np.log(np.maximum(right, _SMALLEST)), weights=pairs.weights))


def expected_calibration_error(probabilities: Floats, pairs: JudgedPairs) -> float:
    """The mean distance of a pair's bin from the diagonal: `BINS` bins of equal width, and in each
    the mean probability against the share of relevant pairs."""
    return float(_errors(_sums(probabilities, pairs).sum(axis=0)[None])[0])


def errors(probabilities: Floats, pairs: JudgedPairs, seed: int) -> Errors:
    """Log loss and expected calibration error, with a percentile interval over `RESAMPLES`
    bootstrap samples of the queries."""
    sums = _sums(probabilities, pairs)
    queries = len(sums)
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWN_AT_ONCE // queries)
    found: list[Floats] = []
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = generator.multinomial(queries, np.full(queries, 1 / queries), size)
        found.append(_errors(np.tensordot(drawn, sums, axes=1)))

    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return Errors(
        log_loss=log_loss(probabilities, pairs),
        ece=float(_errors(sums.sum(axis=0)[None])[0]),
        ece_low=float(low),
        ece_high=float(high),
    )


def reliability(probabilities: Floats, pairs: JudgedPairs) -> tuple[Bin, ...]:
    """The bins of a reliability diagram."""
    place = _bin_of(probabilities)
    counts = np.bincount(place, minlength=BINS)
    totals = _sums(probabilities, pairs).sum(axis=0)
    bins: list[Bin] = []
    for count, (weight, probability, relevant) in zip(
        counts.tolist(), totals.tolist(), strict=True
    ):
        bins.append(
            Bin(
                pairs=count,
                probability=min(probability / (weight or 1.0), 1.0),
                relevant=min(relevant / (weight or 1.0), 1.0),
            )
        )
    return tuple(bins)


def _bin_of(probabilities: Floats) -> Integers:
    return np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)


def _sums(probabilities: Floats, pairs: JudgedPairs) -> Floats:
    """Weights, probabilities and relevant pairs: sums for each query and bin, `[queries, bins,
    3]`."""
    queries = pairs.count_queries
    place = pairs.queries * BINS + _bin_of(probabilities)
    ones = np.ones(len(place))
    columns: tuple[Floats, ...] = (ones, probabilities, pairs.relevant.astype(np.float64))
    sums = np.empty((queries * BINS, len(columns)))
    for number, column in enumerate(columns):
        sums[:, number] = np.bincount(place, pairs.weights * column, queries * BINS)
    return sums.reshape(queries, BINS, len(columns))


def _errors(totals: Floats) -> Floats:
    """Expected calibration errors of sums `[samples, bins, 3]`."""
    weights = totals[:, :, 0].sum(axis=1)
    distances = np.abs(totals[:, :, 1] - totals[:, :, 2]).sum(axis=1)
    return np.asarray(distances / weights, np.float64)
