"""The exact search against all inner products at once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model_store.retrieval.exact import search_exactly

_small = st.integers(-2, 2)  # products are exact, and many are equal


@settings(max_examples=100, deadline=None)
@given(
    documents=arrays(np.float32, st.tuples(st.integers(0, 30), st.just(2)), elements=_small),
    queries=arrays(np.float32, st.tuples(st.integers(1, 4), st.just(2)), elements=_small),
    most=st.integers(1, 12),
    part=st.integers(1, 9),
)
def test_the_best_are_those_of_all_products_however_the_documents_are_divided(
    documents: np.ndarray, queries: np.ndarray, most: int, part: int
) -> None:
    parts = [documents[first : first + part] for first in range(0, len(documents), part)]
    scores = queries @ documents.T
    for row, found in zip(scores, search_exactly(parts, queries, most), strict=True):
        expected = np.lexsort((np.arange(len(row)), -row))[:most]
        assert found.numbers.tolist() == expected.tolist()
        assert found.scores.tolist() == row[expected].tolist()
