"""Metrics of scores by model: added per request as if one by one, and kept for the most recent
models only."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from service.errors import DeadlineExceeded, InvalidImage, RerankError, WorkerFailed
from service.observability.score_metrics import (
    KEPT_SECONDS,
    MOST_DIGESTS,
    OTHER,
    ScoreMetrics,
    short_digest,
)
from service.wire import Scored, Transform

DIGEST = "sha256:" + "ab" * 32
BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
REFUSED = [InvalidImage(), WorkerFailed(), DeadlineExceeded()]

logits = st.one_of(
    st.floats(-1e30, 1e30),
    st.floats(-10, 10),
    st.sampled_from([math.log(p / (1 - p)) for p in BOUNDS[:-1]]),
)
scores = st.builds(Scored, logits, st.integers(0, 9), st.just(0), st.booleans())
verdicts = st.lists(st.one_of(scores, st.sampled_from(REFUSED)), max_size=30)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def samples(quality: ScoreMetrics) -> dict[tuple[str, ...], float]:
    """The exported samples by name and label values."""
    registry = CollectorRegistry()
    registry.register(quality)
    return {
        (each.name, *each.labels.values()): each.value
        for family in registry.collect()
        for each in family.samples
    }


def digests(quality: ScoreMetrics) -> set[str]:
    return {name[1] for name in samples(quality)}


def digest(number: int) -> str:
    return f"sha256:{number:064x}"[:7] + f"{number:012x}" + "0" * 52


@settings(max_examples=50, deadline=None)
@given(st.lists(verdicts, min_size=1, max_size=5))
def test_a_request_at_once_counts_as_its_scores_one_by_one(
    requests: list[list[Scored | RerankError]],
) -> None:
    quality, registry = ScoreMetrics(), CollectorRegistry()
    wanted = Histogram("rerank_relevance_score", "", buckets=BOUNDS, registry=registry)
    for request in requests:
        quality.count(DIGEST, request, cached=0)
        for verdict in request:
            if isinstance(verdict, Scored):
                wanted.observe(_on_its_side(verdict.logit))
    found = samples(quality)
    assert found["rerank_relevance_score_count", "abababababab"] == registry.get_sample_value(
        "rerank_relevance_score_count"
    )
    for bound in BOUNDS:
        of_one = registry.get_sample_value(
            "rerank_relevance_score_bucket", {"le": str(float(bound))}
        )
        assert found["rerank_relevance_score_bucket", "abababababab", str(float(bound))] == of_one
    scored = [each for request in requests for each in request if isinstance(each, Scored)]
    total = sum(Transform()(each.logit) for each in scored)
    assert math.isclose(found["rerank_relevance_score_sum", "abababababab"], total, abs_tol=1e-9)


def test_relevance_scores_follow_the_models_transform() -> None:
    metrics, transform = ScoreMetrics(), Transform(scale=5.0, shift=1.0)
    metrics.count(DIGEST, [Scored(6.0, 5, 0, False)], cached=0, probability=transform)
    found = samples(metrics)["rerank_relevance_score_sum", "abababababab"]
    assert math.isclose(found, 1 / (1 + math.exp(-1)))


def test_scores_of_a_linear_transform_count_as_they_are_answered() -> None:
    metrics, registry = ScoreMetrics(), CollectorRegistry()
    wanted = Histogram("rerank_relevance_score", "", buckets=BOUNDS, registry=registry)
    transform = Transform(scale=10.0, curve="linear")
    answered = [Scored(raw, 5, 0, False) for raw in (-3.0, 0.0, 7.2, 9.0, 10.0, 42.0)]
    metrics.count(DIGEST, answered, cached=0, probability=transform)
    for score in answered:
        wanted.observe(transform(score.logit))

    found = samples(metrics)
    for bound in (*BOUNDS, math.inf):
        written = "+Inf" if bound == math.inf else str(float(bound))
        assert found["rerank_relevance_score_bucket", "abababababab", written] == (
            registry.get_sample_value("rerank_relevance_score_bucket", {"le": written})
        )
    assert math.isclose(found["rerank_relevance_score_sum", "abababababab"], 6.52)


def _on_its_side(logit: float) -> float:
    """A score, corrected so that rounding does not move it across a bucket bound that its logit
    is not beyond."""
    below = sum(math.log(bound / (1 - bound)) < logit for bound in BOUNDS[:-1])
    return BOUNDS[below]


def test_what_became_of_pairs() -> None:
    quality = ScoreMetrics()
    quality.count(DIGEST, [Scored(1.0, 5, 0, True), Scored(2.0, 5, 0, False), *REFUSED], cached=1)
    found = samples(quality)
    results = Counter(
        {name[2]: value for name, value in found.items() if name[0] == "rerank_pairs_total"}
    )
    assert results == {"computed": 1, "cached": 1, "refused": 1, "failed": 2}
    assert found["rerank_truncated_pairs_total", "abababababab"] == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.text(max_size=20).map("sha256:".__add__)
        | st.integers(0, 99).map(digest)
        | st.text(max_size=80),
        max_size=200,
    )
)
def test_whatever_workers_say_the_series_stay_few(said: list[str]) -> None:
    quality = ScoreMetrics()
    for each in said:
        quality.count(each, [Scored(0.0, 1, 0, False)], cached=0)
    assert len(digests(quality)) <= MOST_DIGESTS + 1
    pairs = [value for name, value in samples(quality).items() if name[0] == "rerank_pairs_total"]
    assert sum(pairs) == len(said), "every pair is counted somewhere"


def test_a_new_model_takes_the_place_of_one_that_is_gone() -> None:
    clock = Clock()
    quality = ScoreMetrics(clock)
    for number in range(MOST_DIGESTS):
        clock.now += 1
        quality.count(digest(number), [], cached=0)
    quality.count(digest(100), [], cached=0)
    assert OTHER in digests(quality), "all of them had a pair a moment ago"
    clock.now += KEPT_SECONDS
    quality.count(digest(1), [], cached=0)
    quality.count(digest(100), [], cached=0)
    assert {short_digest(digest(1)), short_digest(digest(100))} <= digests(quality)
    assert short_digest(digest(0)) not in digests(quality)


def test_a_digest_is_short_and_hexadecimal_or_other() -> None:
    assert short_digest(DIGEST) == "abababababab"
    assert {
        short_digest(each)
        for each in ("", "sha256:", "sha256:abc", 'sha256:"} 1\n' + "a" * 64, "x" * 64)
    } == {OTHER}
