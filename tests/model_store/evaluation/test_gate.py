"""The paired bootstrap: it lets chance pass, holds back what is worse, and compares nothing that is
not alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.evaluation.bootstrap import RESAMPLES, bootstrap
from model_store.evaluation.gate import MIN_QUERIES, compare
from model_store.evaluation.results import Results, ResultsUnusable

NOBODY = "sha256:" + "0" * 64
Values = dict[str, dict[str, float]]


def results(datasets: Values, **changes: str) -> Results:
    return Results.model_validate(
        {"benchmark": "b", "metric": "ndcg@10", "checkpoint": NOBODY, "datasets": datasets}
        | changes
    )


def drawn(seed: int, queries: int = 100, shift: float = 0.0, names: str = "ab") -> Values:
    """Values about 0.7, the same for the same seed but for a shift of each."""
    rng = np.random.default_rng(seed)
    datasets = {}
    for name in names:
        values = rng.normal(0.7 + shift, 0.2, queries)
        datasets[name] = {f"q{number}": float(value) for number, value in enumerate(values)}
    return datasets


def test_enough_resamples_are_drawn() -> None:
    assert RESAMPLES >= 10_000


def test_a_candidate_that_is_worse_everywhere_is_worse() -> None:
    verdict = compare(results(drawn(1, shift=-0.05)), results(drawn(1)))
    assert verdict.worse
    assert verdict.low <= verdict.difference <= verdict.high < 0
    assert verdict.difference == pytest.approx(-0.05)
    assert "worse than" in verdict.sentence()


def test_the_same_values_are_not_worse() -> None:
    verdict = compare(results(drawn(1)), results(drawn(1)))
    assert (verdict.low, verdict.difference, verdict.high) == (0, 0, 0)
    assert not verdict.worse


def test_a_better_candidate_is_let_through() -> None:
    verdict = compare(results(drawn(1, shift=0.05)), results(drawn(1)))
    assert not verdict.worse
    assert "better than" in verdict.sentence()


def test_a_small_loss_within_chance_is_let_through() -> None:
    """A mean difference of -0.01 with a deviation of 0.3 over 50 queries is noise: its standard
    error is 0.04."""
    noise = np.random.default_rng(3).normal(0, 0.3, 50)
    noise += -0.01 - noise.mean()
    verdict = compare(
        results({"a": {f"q{n}": 0.5 + float(x) for n, x in enumerate(noise)}}),
        results({"a": {f"q{n}": 0.5 for n in range(50)}}),
    )

    assert verdict.difference == pytest.approx(-0.01)
    assert not verdict.worse
    assert verdict.low < 0 < verdict.high


def test_the_interval_is_that_of_the_normal_law_where_that_holds() -> None:
    """Over many queries the percentile interval is mean +- 1.96 standard errors."""
    values = np.random.default_rng(4).normal(0.02, 0.1, 2000)
    low, high = np.quantile(bootstrap([values], resamples=RESAMPLES, seed=0), [0.025, 0.975])
    error = values.std() / 2000**0.5

    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_chance_alone_is_held_back_as_rarely_as_the_level_says() -> None:
    """Candidates that are as good as what they follow: 2.5 % fall below the interval; of 400
    that is 10, and 25 is 5 sigma."""
    held = 0
    for trial in range(400):
        differences = np.random.default_rng(trial).normal(0, 0.2, 100)
        held += bool(np.quantile(bootstrap([differences], resamples=1000, seed=trial), 0.975) < 0)
    assert held <= 25


def test_pairing_counts() -> None:
    """A small loss at every query is seen through queries that differ by far more."""
    verdict = compare(results(drawn(1, shift=-0.001)), results(drawn(1)))
    assert verdict.worse


def test_a_dataset_counts_once_however_large_it_is() -> None:
    small = {f"q{n}": 1.0 for n in range(20)}
    large = {f"q{n}": 0.0 for n in range(980)}

    assert results({"a": small, "b": large}).score == 0.5

    verdict = compare(
        results({"a": small, "b": large}), results({"a": dict.fromkeys(small, 0.0), "b": large})
    )

    assert verdict.difference == 0.5


def test_drawing_in_pieces_changes_nothing_but_memory() -> None:
    means = bootstrap([np.full(3000, 0.25)], resamples=5000, seed=0)
    assert means.shape == (5000,)
    assert means == pytest.approx(0.25)


def test_a_large_dataset_of_few_values_has_the_interval_of_the_normal_law() -> None:
    """Its values are counted, not drawn one by one: MRB's hit rates are of up to 50,004 queries."""
    values = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=50_004)
    low, high = np.quantile(bootstrap([values], resamples=RESAMPLES, seed=0), [0.025, 0.975])
    error = values.std() / len(values) ** 0.5

    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def row(*datasets: str, metric: str = "ndcg@10") -> dict[str, object]:
    return {"cell": "T-T", "metric": metric, "datasets": list(datasets)}


def test_a_row_of_several_datasets_counts_once() -> None:
    """CQADupStack is one row of MRB's table, the mean over 12 datasets."""
    table = {"rows": {"one": row("a"), "two": row("b", "c")}}
    values = {"a": 1.0, "b": 0.0, "c": 0.5}
    datasets = {name: {f"q{n}": value for n in range(20)} for name, value in values.items()}
    ours = Results.model_validate(results(datasets).model_dump() | table)
    zero = {name: dict.fromkeys(values, 0.0) for name, values in datasets.items()}
    theirs = Results.model_validate(results(zero).model_dump() | table)

    assert ours.score == (1.0 + 0.25) / 2
    assert compare(ours, theirs).difference == ours.score


def test_results_of_other_candidates_or_of_another_table_are_not_compared() -> None:
    table = {"rows": {"one": row("a", "b")}}
    digests = {"candidates": dict.fromkeys("ab", NOBODY)}
    ours = Results.model_validate(results(drawn(1)).model_dump() | table | digests)
    other = {"candidates": {"a": NOBODY, "b": "sha256:" + "1" * 64}}
    with pytest.raises(ResultsUnusable, match="not of the same candidates: those of 'b' differ"):
        compare(ours, Results.model_validate(ours.model_dump() | other))
    with pytest.raises(ResultsUnusable, match="tables of different rows"):
        compare(ours, Results.model_validate(ours.model_dump() | {"rows": None}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=MIN_QUERIES, max_size=40), st.integers(0, 10))
def test_the_same_results_give_the_same_verdict_and_the_interval_holds_it(
    values: list[float], seed: int
) -> None:
    ours = results({"a": {str(n): value for n, value in enumerate(values)}})
    theirs = results({"a": {str(n): value for n, value in enumerate(reversed(values))}})
    first = compare(ours, theirs, resamples=500, seed=seed)

    assert first == compare(ours, theirs, resamples=500, seed=seed)
    assert first.low - 1e-12 <= first.high
    assert first.difference == pytest.approx(0, abs=1e-12)

    mirrored = compare(theirs, ours, resamples=500, seed=seed)

    assert (mirrored.low, mirrored.high) == pytest.approx((-first.high, -first.low), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"benchmark": "other"}, "cannot be compared"),
        ({"metric": "mrr"}, "cannot be compared"),
        ({"datasets": drawn(1, names="a")}, "only one has the dataset 'b'"),
        ({"datasets": drawn(1, queries=101)}, "only one has 'q100' of 'a'"),
    ],
)
def test_what_is_not_alike_is_not_compared(change: dict[str, object], sentence: str) -> None:
    other = Results.model_validate(results(drawn(1)).model_dump() | change)
    with pytest.raises(ResultsUnusable, match=sentence):
        compare(other, results(drawn(1)))


def test_too_few_queries_are_not_compared() -> None:
    few = results(drawn(1, queries=MIN_QUERIES - 1, names="a"))
    with pytest.raises(ResultsUnusable, match="too few"):
        compare(few, few)
