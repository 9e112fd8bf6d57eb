"""On a CPU a pair's logit is the same to the last bit, whatever else is in its call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest
from msgspec import structs

from model_store.checkpoint import resolve
from model_store.synthetic.examples import Side
from service.wire import ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.worker.calls import as_call, pictures, verdicts

WORDS = (
    "sort",
    "a",
    "list",
    "of",
    "red",
    "circles",
    "and",
    "return",
    "none",
    "unbelievably",
    "blue",
)
SIZES = (1, 2, 3, 5, 9, 17, 40)


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine(device="cpu", threads=request.param)
    await engine.start(resolve(str(TINY)))
    yield engine
    await engine.close()


def written(rng: Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def mixed(rng: Random) -> list[Side]:
    """Texts of every length, pictures, and both, in any order."""
    texts: list[Side] = [(written(rng, words),) for words in (*range(1, 60, 2), 100, 300, 900)]
    seen = pictures(24, f"company {rng.random()}")
    documents = [
        *texts,
        *seen[:12],
        *((shown[0], written(rng, 5 + place)) for place, shown in enumerate(seen[12:])),
    ]
    rng.shuffle(documents)
    return documents


def some_of(call: ScoreCall, places: list[int]) -> ScoreCall:
    """The call with those documents alone, and the images that they show."""
    documents = [call.documents[place] for place in places]
    shown = [part for item in (call.query, *documents) for part in item if isinstance(part, int)]
    used = list(dict.fromkeys(shown))
    renamed = [
        [used.index(part) if isinstance(part, int) else part for part in item]
        for item in (call.query, *documents)
    ]
    return structs.replace(
        call, query=renamed[0], documents=renamed[1:], images=[call.images[place] for place in used]
    )


async def logits(engine: TorchEngine, call: ScoreCall) -> list[float]:
    found = await verdicts(engine, call)
    assert all(isinstance(each, Scored) for each in found)
    return [each.logit for each in found if isinstance(each, Scored)]


@pytest.mark.parametrize("query_words", [1, 30, 300])
async def test_a_logit_is_the_same_in_every_company(engine: TorchEngine, query_words: int) -> None:
    rng = Random(f"company of {query_words}")
    (shown,) = pictures(1, "query")
    for query in ((written(rng, query_words),), (shown[0], written(rng, query_words))):
        whole = as_call("find", query, mixed(rng))
        wanted = await logits(engine, whole)
        for size in SIZES:
            places = rng.sample(range(len(wanted)), size)
            assert await logits(engine, some_of(whole, places)) == [
                wanted[place] for place in places
            ]
