"""Errors of probabilities, against sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from model_store.calibration.description import BINS
from model_store.calibration.judged_pairs import judged_pairs
from model_store.calibration.measures import (
    errors,
    expected_calibration_error,
    log_loss,
    reliability,
)
from tests.model_store.calibration.judged import drawn

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(PAIRS)
@settings(max_examples=60)
def test_the_error_is_that_of_guo_et_al(found: list[tuple[float, bool]]) -> None:
    expected = 0.0
    for number in range(BINS):
        inside = [each for each in found if min(int(each[0] * BINS), BINS - 1) == number]
        if inside:
            confidence = sum(each[0] for each in inside) / len(inside)
            accuracy = sum(each[1] for each in inside) / len(inside)
            expected += len(inside) / len(found) * abs(confidence - accuracy)

    values = np.array([each[0] for each in found])
    pairs = judged_pairs([([0.0] * len(found), [each[1] for each in found])])
    assert expected_calibration_error(values, pairs) == pytest.approx(expected)

    bins = reliability(values, pairs)
    assert sum(each.pairs for each in bins) == len(found)
    weighted = [each.pairs * abs(each.probability - each.relevant) for each in bins]
    assert sum(weighted) / len(found) == pytest.approx(expected)


def test_log_loss_is_the_mean_of_each_class_by_its_weight() -> None:
    pairs = judged_pairs([([0.0] * 4, [True, False, False, False])], relevant_share=0.5)
    loss = log_loss(np.array([0.8, 0.1, 0.1, 0.1]), pairs)
    assert loss == pytest.approx((-np.log(0.8) - np.log(0.9)) / 2)
    assert np.isfinite(log_loss(np.zeros(4), pairs))


def test_the_interval_is_wider_where_pairs_of_a_query_agree() -> None:
    """100 queries of ten equal pairs say as much as 100 pairs."""
    apart = drawn(expit, 1000, 1)
    together = judged_pairs(
        [
            ([float(score)] * 10, [bool(relevant)] * 10)
            for score, relevant in zip(apart.scores[:100], apart.relevant[:100], strict=True)
        ]
    )
    wide = errors(expit(together.scores), together, 0)
    narrow = errors(expit(apart.scores), apart, 0)
    assert wide.ece_high - wide.ece_low > 1.5 * (narrow.ece_high - narrow.ece_low)
    assert narrow.ece_low <= narrow.ece_high
    assert errors(expit(apart.scores), apart, 0) == narrow
