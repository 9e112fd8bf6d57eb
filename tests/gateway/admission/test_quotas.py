"""Quotas of a tenant: its rate over any time, its burst, its requests in flight, and the
`Retry-After`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, NoWorker, Overloaded, RateLimited, RerankError
from service.gateway.admission.buckets import BURST_SECONDS, ProcessBuckets
from service.gateway.admission.quotas import (
    MAX_RETRY_AFTER,
    UNBOUNDED,
    Quota,
    Quotas,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def ask(
    quotas: Quotas, quota: Quota, pairs: int, scope: str = "a", then: RerankError | None = None
) -> int | None:
    """The `Retry-After` in seconds; None if the request was served."""
    try:
        with quotas.ticket(scope, quota) as visit:
            visit.charge(pairs)
            if then:
                raise then
    except RateLimited as refusal:
        return refusal.retry_after
    except (InvalidRequest, NoWorker, Overloaded):
        pass
    return None


def test_a_burst_is_served_and_what_is_beyond_waits() -> None:
    clock = Clock()
    quotas, quota = Quotas(clock), Quota(pairs_per_second=10)
    assert ask(quotas, quota, 19) is None
    assert ask(quotas, quota, 11) is None  # there was one left: it is served whole
    assert ask(quotas, quota, 1) == 1
    clock.now += 0.99
    assert ask(quotas, quota, 1) == 1
    clock.now += 0.02

    assert ask(quotas, quota, 1) is None


def test_a_request_larger_than_the_bucket_is_served_and_its_debt_waited_off() -> None:
    clock = Clock()
    quotas, quota = Quotas(clock), Quota(pairs_per_second=10)
    assert ask(quotas, quota, 1_000) is None
    assert ask(quotas, quota, 1) == MAX_RETRY_AFTER
    clock.now += 98.1

    assert ask(quotas, quota, 1_000) is None
    assert ask(Quotas(clock), Quota(pairs_per_second=0.001), 1_000) is None


@pytest.mark.parametrize(
    ("pairs", "wait", "header"),
    [
        (21, "1 s", 1),
        (319, "30 s", 30),
        (320, "30 s", 30),
        (620, "60 s", 30),
        (650, "2 min", 30),
        (1_000_020, "1667 min", 30),
    ],
)
def test_the_sentence_says_how_long_and_the_header_no_more_than_clients_bear(
    pairs: int, wait: str, header: int
) -> None:
    """Cohere's SDKs sleep through the header's seconds, twice, before their caller sees the
    sentence."""
    quotas, quota = Quotas(Clock()), Quota(pairs_per_second=10)
    assert ask(quotas, quota, pairs) is None
    with pytest.raises(RateLimited) as refusal, quotas.ticket("a", quota):
        pass
    assert refusal.value.message == f"This API key's quota of pairs is used up: more in {wait}."
    assert refusal.value.retry_after == header


def test_how_long_to_wait_is_bounded() -> None:
    quotas, quota = Quotas(Clock()), Quota(pairs_per_second=0.001)
    assert ask(quotas, quota, 1_000) is None
    assert ask(quotas, quota, 1) == MAX_RETRY_AFTER


@given(
    st.floats(0.1, 1_000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1_000)), min_size=1, max_size=60),
)
def test_nobody_gets_more_than_rate_burst_and_one_request(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    quotas, quota, start, served = Quotas(clock), Quota(pairs_per_second=rate), clock.now, 0
    for seconds, pairs in steps:
        clock.now += seconds
        waits = ask(quotas, quota, pairs)
        served += pairs if waits is None else 0
        assert served <= max(1, rate * BURST_SECONDS) + rate * (clock.now - start) + 1_000
        if waits is not None:
            clock.now += waits
            again = ask(quotas, quota, pairs)
            assert again is None or waits == MAX_RETRY_AFTER, "who waits as told is served"
            served += pairs if again is None else 0


def test_what_the_service_could_not_serve_is_given_back_and_what_was_wrong_is_not() -> None:
    for failure, served in ((Overloaded(), True), (NoWorker(), True), (InvalidRequest(), False)):
        quotas, quota = Quotas(Clock()), Quota(pairs_per_second=10)
        assert ask(quotas, quota, 500, then=failure) is None
        assert (ask(quotas, quota, 1) is None) == served


def test_requests_at_once_are_counted_and_given_back() -> None:
    quotas, quota = Quotas(Clock()), Quota(max_in_flight=2)
    with quotas.ticket("a", quota), quotas.ticket("a", quota):
        assert ask(quotas, quota, 1) == 1
        assert ask(quotas, quota, 1, scope="b") is None
    for _ in range(9):
        assert ask(quotas, quota, 1, then=InvalidRequest()) is None


def test_an_empty_bucket_is_known_before_the_pairs_are() -> None:
    quotas, quota = Quotas(Clock()), Quota(pairs_per_second=1)
    assert ask(quotas, quota, 100) is None
    with pytest.raises(RateLimited), quotas.ticket("a", quota):
        raise AssertionError


def test_one_that_came_while_there_was_credit_may_find_it_gone() -> None:
    quotas, quota = Quotas(Clock()), Quota(pairs_per_second=1)
    with quotas.ticket("a", quota) as first, quotas.ticket("a", quota) as second:
        first.charge(100)
        with pytest.raises(RateLimited):
            second.charge(1)


def test_a_changed_quota_holds_from_then_on() -> None:
    clock = Clock()
    quotas = Quotas(clock)
    assert ask(quotas, Quota(pairs_per_second=1), 100) is None
    assert ask(quotas, Quota(pairs_per_second=100), 1) == 1
    assert ask(quotas, UNBOUNDED, 10**6) is None
    clock.now += 1

    assert ask(quotas, Quota(pairs_per_second=100), 1) is None


def test_scopes_do_not_share_and_buckets_do_not_pile_up() -> None:
    buckets = ProcessBuckets(max_buckets=100)
    quotas, quota = Quotas(Clock(), buckets), Quota(pairs_per_second=1)
    assert ask(quotas, quota, 50, scope="debtor") is None
    for number in range(1_000):
        assert ask(quotas, quota, 1, scope=str(number)) is None

    assert ask(quotas, quota, 1, scope="debtor") is not None
    assert len(buckets) <= 100
