"""A pair that the network fails for is refused alone; a network that fails for all fails the
call."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Segment
from service.wire import Pixels, Refused, ScoreCall, Scored
from service.worker.engines.isolation import MAX_LOGIT, isolated
from service.worker.engines.torch.decoder_network import DecoderNetwork, ReadPrefix
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.metrics import metric_value
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
def test_those_that_fail_and_no_others_have_no_logit(poisoned: list[bool], max_rows: int) -> None:
    """The function also fails for many rows at once, as one that runs out of memory does."""
    rows = list(enumerate(poisoned))

    def score(batch: Sequence[tuple[int, bool]]) -> list[float]:
        if len(batch) > max_rows or any(bad for _, bad in batch):
            raise RuntimeError
        return [float(number) for number, _ in batch]

    assert isolated(rows, score, lambda: True) == [None if bad else number for number, bad in rows]


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf, MAX_LOGIT * 10])
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


class FailingNetwork(DecoderNetwork):
    """A loaded network that fails on request, where a marked token or an image is in its input."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(checkpoint, device, dtype)
        self.mark = marked_token(checkpoint)
        self.restore()

    def restore(self) -> None:
        """Fail for marked tokens alone, as at first."""
        self.failure: Exception = RuntimeError()
        self.bad_image = b""
        self.works = True
        self.marked_logit: float | None = None
        self.max_rows = 10**6

    def encode(self, images: Sequence[Pixels]) -> list[Tensor]:
        if any(image.digest == self.bad_image for image in images):
            raise self.failure
        return super().encode(images)

    def read_prefix(self, segment: Segment, images: Mapping[bytes, Tensor]) -> ReadPrefix:
        self._fail_for([segment])
        return super().read_prefix(segment, images)

    def score(
        self,
        prefix: ReadPrefix,
        suffixes: Sequence[Segment],
        images: Mapping[bytes, Tensor],
    ) -> list[float]:
        if self.marked_logit is None:
            self._fail_for(suffixes)
            return super().score(prefix, suffixes, images)

        logits = super().score(prefix, suffixes, images)
        for row, suffix in enumerate(suffixes):
            if self.mark in suffix.ids:
                logits[row] = self.marked_logit
        return logits

    def _fail_for(self, segments: Sequence[Segment]) -> None:
        marked = any(self.mark in segment.ids for segment in segments)
        if marked or not self.works or len(segments) > self.max_rows:
            raise self.failure


def marked_token(checkpoint: Checkpoint) -> int:
    """A token of `MARK` that no other text of these tests has."""
    encode = checkpoint.family.tokenizer.encode
    common: set[int] = set()
    for ids in encode(["a", "b", "<Document>:", "<Document>:a", "<Document>:b", *TEXTS]):
        common.update(ids)
    return max(set(encode([f"<Document>:{MARK}"])[0]) - common)


@dataclass(frozen=True)
class Loaded:
    engine: TorchEngine
    network: FailingNetwork


@pytest.fixture(scope="module")
async def loaded() -> AsyncIterator[Loaded]:
    networks: list[FailingNetwork] = []

    def load_network(
        checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype
    ) -> FailingNetwork:
        networks.append(FailingNetwork(checkpoint, device, dtype))
        return networks[0]

    engine = TorchEngine(device="cpu", threads=1, load_network=load_network)
    await engine.start(resolve(str(TINY)))
    yield Loaded(engine, networks[0])
    await engine.close()


@pytest.fixture
def engine(loaded: Loaded) -> TorchEngine:
    return loaded.engine


@pytest.fixture
def network(loaded: Loaded) -> Iterator[FailingNetwork]:
    yield loaded.network
    loaded.network.restore()


def call_of(texts: Sequence[str]) -> ScoreCall:
    return as_call("find", ("q",), [(text,) for text in texts])


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_pair_that_makes_the_network_fail_is_refused_alone(
    engine: TorchEngine, network: FailingNetwork, failure: Exception
) -> None:
    wanted = await verdicts(engine, call_of(TEXTS))
    network.failure = failure
    before = metric_value("rerank_isolated_pairs_total")
    poisoned = [*TEXTS[:7], MARK, *TEXTS[7:40], f"{MARK} again", *TEXTS[40:]]
    found = await verdicts(engine, call_of(poisoned))

    assert [index for index, verdict in enumerate(found) if verdict == REFUSED] == [7, 41]
    assert [verdict for verdict in found if verdict != REFUSED] == wanted  # to the last bit
    assert metric_value("rerank_isolated_pairs_total") == before + 2
    assert engine.healthy()


async def test_a_pair_alone_is_refused_too(engine: TorchEngine, network: FailingNetwork) -> None:
    assert await verdicts(engine, call_of([MARK])) == [REFUSED]


async def test_an_image_that_makes_the_network_fail_is_refused_alone(
    engine: TorchEngine, network: FailingNetwork
) -> None:
    call = as_call("find", ("q",), [*pictures(5, "failing"), ("text",)])
    wanted = await verdicts(engine, call)
    network.bad_image = call.images[2].digest
    found = await verdicts(engine, call)

    assert found == [*wanted[:2], REFUSED, *wanted[3:]]


async def test_a_query_that_makes_the_network_fail_costs_its_own_pairs(
    engine: TorchEngine, network: FailingNetwork
) -> None:
    assert await verdicts(engine, as_call("find", (MARK,), [("a",), ("b",)])) == [REFUSED, REFUSED]
    assert engine.healthy()
    assert isinstance((await verdicts(engine, call_of(["a"])))[0], Scored)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -1e31])
async def test_a_pair_whose_logit_is_no_number_is_refused_alone(
    engine: TorchEngine, network: FailingNetwork, logit: float
) -> None:
    network.marked_logit = logit
    found = await verdicts(engine, call_of(["a", MARK, "b"]))
    assert found[1] == REFUSED
    assert isinstance(found[0], Scored)
    assert isinstance(found[2], Scored)


async def test_batches_that_are_too_much_at_once_are_halved_until_they_fit(
    engine: TorchEngine, network: FailingNetwork
) -> None:
    wanted = await verdicts(engine, call_of(TEXTS))
    network.failure, network.max_rows = torch.OutOfMemoryError(), 3
    assert await verdicts(engine, call_of(TEXTS)) == wanted


async def test_a_network_that_fails_for_all_fails_the_call_and_is_not_healthy_until_it_works(
    engine: TorchEngine, network: FailingNetwork
) -> None:
    network.works = False
    with pytest.raises(RuntimeError):
        await verdicts(engine, call_of(TEXTS))
    assert not engine.healthy()

    network.works = True
    assert all(isinstance(verdict, Scored) for verdict in await verdicts(engine, call_of(TEXTS)))
    assert engine.healthy()
