"""A pair that the network fails for is refused alone; a network that fails for all fails the
call."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_store.checkpoint import resolve
from model_store.families.prompt import Segment
from service.observability.engine_metrics import ISOLATED_PAIRS
from service.wire import Pixels, Refused, ScoreCall, Scored
from service.worker.engines.isolation import MOST_LOGIT, isolated
from service.worker.engines.torch.engine import TorchEngine
from service.worker.engines.torch.network import Network
from service.worker.engines.torch.shared_prefix import Prefix
from service.worker.settings import WorkerSettings
from tests.conftest import TINY
from tests.worker.calls import as_call, pictures, verdicts

MARK = "zebra"
REFUSED = Refused("worker_failed")
TEXTS = [f"the list of words {'and more ' * (number % 23)}{number}" for number in range(60)]
FAILURES = [
    RuntimeError("shape"),
    torch.OutOfMemoryError("0x7f00deadbeef"),
    MemoryError(),
    ValueError(),
    AssertionError(),
]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_those_that_fail_and_no_others_have_no_logit(poisoned: list[bool], most: int) -> None:
    """The function also fails for many rows at once, as one that runs out of memory does."""
    rows = list(enumerate(poisoned))

    def score(some: Sequence[tuple[int, bool]]) -> list[float]:
        if len(some) > most or any(bad for _, bad in some):
            raise RuntimeError
        return [float(number) for number, _ in some]

    assert isolated(rows, score, lambda: True) == [None if bad else number for number, bad in rows]


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf, MOST_LOGIT * 10])
def test_what_is_no_logit_is_none(logit: float) -> None:
    assert isolated(
        "abc", lambda rows: [logit if row == "b" else 1.0 for row in rows], lambda: True
    ) == [1.0, None, 1.0]


def test_what_fails_for_a_good_pair_too_is_raised_at_once() -> None:
    passes = 0

    def score(rows: Sequence[str]) -> list[float]:
        nonlocal passes
        passes += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        isolated("abcdefgh", score, lambda: False)
    assert passes == 1


class Sick:
    """A loaded network that raises what it is told to, where a marked token or an image is among
    what it is given."""

    def __init__(self, network: Network, mark: int) -> None:
        self._network = network
        self._mark = mark
        self.failure: Exception = RuntimeError()
        self.bad_image = b""
        self.well = True
        self.answers: float | None = None
        self.most_rows = 10**6

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def _look_at(self, segments: Sequence[Segment]) -> None:
        if (
            not self.well
            or len(segments) > self.most_rows
            or any(self._mark in segment.ids for segment in segments)
        ):
            raise self.failure

    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        if any(image.digest == self.bad_image for image in images):
            raise self.failure
        return self._network.encode(images)

    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> tuple[Prefix, int]:
        self._look_at([segment])
        return self._network.read_prefix(segment, images)

    def score(
        self,
        prefix: Prefix,
        start: int,
        suffixes: Sequence[Segment],
        images: Mapping[bytes, Tensor],
    ) -> list[float]:
        if self.answers is None:
            self._look_at(suffixes)
        logits = self._network.score(prefix, start, suffixes, images)
        marked = [self._mark in suffix.ids for suffix in suffixes]
        return [
            self.answers if bad and self.answers is not None else logit
            for bad, logit in zip(marked, logits, strict=True)
        ]


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(WorkerSettings(device="cpu", threads=1))
    await engine.start(resolve(str(TINY)))
    yield engine
    await engine.close()


@pytest.fixture
def sick(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> Sick:
    suffix = engine._checkpoint.family.suffix
    common = {token for text in ("a", "b", *TEXTS) for token in suffix((text,)).ids}
    sick = Sick(engine._network, max(set(suffix((MARK,)).ids) - common))
    monkeypatch.setattr(engine, "_network", sick)
    return sick


def call_of(texts: Sequence[str]) -> ScoreCall:
    return as_call("find", ("q",), [(text,) for text in texts])


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_pair_that_makes_the_network_fail_is_refused_alone(
    engine: TorchEngine, sick: Sick, failure: Exception
) -> None:
    wanted = await verdicts(engine, call_of(TEXTS))
    sick.failure = failure
    before = ISOLATED_PAIRS._value.get()
    poisoned = [*TEXTS[:7], MARK, *TEXTS[7:40], f"{MARK} again", *TEXTS[40:]]
    found = await verdicts(engine, call_of(poisoned))
    assert [index for index, each in enumerate(found) if each == REFUSED] == [7, 41]
    assert [each for each in found if each != REFUSED] == wanted  # to the last bit
    assert ISOLATED_PAIRS._value.get() == before + 2
    assert engine.healthy()


async def test_a_pair_alone_is_refused_too(engine: TorchEngine, sick: Sick) -> None:
    assert await verdicts(engine, call_of([MARK])) == [REFUSED]


async def test_an_image_that_makes_the_network_fail_is_refused_alone(
    engine: TorchEngine, sick: Sick
) -> None:
    call = as_call("find", ("q",), [*pictures(5, "sick"), ("text",)])
    wanted = await verdicts(engine, call)
    sick.bad_image = call.images[2].digest
    found = await verdicts(engine, call)
    assert found == [*wanted[:2], REFUSED, *wanted[3:]]


async def test_a_query_that_makes_the_network_fail_costs_its_own_pairs(
    engine: TorchEngine, sick: Sick
) -> None:
    assert await verdicts(engine, as_call("find", (MARK,), [("a",), ("b",)])) == [REFUSED, REFUSED]
    assert engine.healthy()
    assert isinstance((await verdicts(engine, call_of(["a"])))[0], Scored)


@pytest.mark.parametrize("answer", [math.nan, math.inf, -1e31])
async def test_a_pair_whose_logit_is_no_number_is_refused_alone(
    engine: TorchEngine, sick: Sick, answer: float
) -> None:
    sick.answers = answer
    found = await verdicts(engine, call_of(["a", MARK, "b"]))
    assert found[1] == REFUSED
    assert isinstance(found[0], Scored)
    assert isinstance(found[2], Scored)


async def test_batches_that_are_too_much_at_once_are_halved_until_they_fit(
    engine: TorchEngine, sick: Sick
) -> None:
    wanted = await verdicts(engine, call_of(TEXTS))
    sick.failure, sick.most_rows = torch.OutOfMemoryError(), 3
    assert await verdicts(engine, call_of(TEXTS)) == wanted


async def test_a_network_that_fails_for_all_fails_the_call_and_is_not_healthy_until_it_works(
    engine: TorchEngine, sick: Sick
) -> None:
    sick.well = False
    with pytest.raises(RuntimeError):
        await verdicts(engine, call_of(TEXTS))
    assert not engine.healthy()
    sick.well = True
    assert all(isinstance(each, Scored) for each in await verdicts(engine, call_of(TEXTS)))
    assert engine.healthy()
