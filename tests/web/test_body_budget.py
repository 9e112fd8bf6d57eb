"""The memory that bodies of requests may take together."""

from __future__ import annotations

import pytest

from service.errors import Overloaded
from service.web.body_budget import BodyBudget


def test_a_body_as_large_as_the_bound_fits_and_one_byte_more_does_not() -> None:
    budget = BodyBudget(10)
    with budget.reserve(10) as count:
        count(10)
        with pytest.raises(Overloaded):
            count(1)
        with pytest.raises(Overloaded), budget.reserve(1):
            raise AssertionError
    for announced in (0, 10):
        with budget.reserve(announced) as count:
            count(10)


def test_a_request_alone_may_grow_beyond_the_bound_and_beside_others_it_may_not() -> None:
    """A wide text takes four times the memory that it was sent in."""
    budget = BodyBudget(100)
    with budget.reserve(50) as first:
        first(50)
        first.grow(40)
        assert budget.total == 50
        with budget.reserve(10) as second:
            second(10)
            first.grow(90)
            with pytest.raises(Overloaded):
                first.grow(91)
            with pytest.raises(Overloaded):
                second.grow(11)
        first.grow(200)
        assert budget.total == 200
        with pytest.raises(Overloaded), budget.reserve() as third:
            third(1)
    assert budget.total == 0


def test_no_tenant_holds_all_with_several_requests() -> None:
    budget = BodyBudget(100)
    with budget.reserve(0, "a") as first, budget.reserve(0, "a") as second:
        first(70)
        second(5)
        for held in (first, second):
            with pytest.raises(Overloaded):
                held(1)
        with pytest.raises(Overloaded), budget.reserve(1, "a"):
            raise AssertionError
        with budget.reserve(25, "b") as other:
            other(25)
            with pytest.raises(Overloaded):
                other(1)
    with budget.reserve(100, "a") as alone:
        alone(100)
    with budget.reserve() as one, budget.reserve() as two:  # nobody has a name: nobody is kept out
        one(60)
        two(40)
