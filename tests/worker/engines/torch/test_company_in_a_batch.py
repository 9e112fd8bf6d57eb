"""On a CPU a pair's logit is the same to the last bit in every call and batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest
from msgspec import structs

from model_store.checkpoint import resolve
from model_store.synthetic.examples import Side
from service.wire import ScoreCall, Scored, WireItem
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
SIZES = (1, 2, 3, 5, 9, 17)


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
    images = pictures(24, f"company {rng.random()}")
    documents = [*texts, *images[:12]]
    for number, (image,) in enumerate(images[12:]):
        documents.append((image, written(rng, 5 + number)))
    rng.shuffle(documents)
    return documents


def with_documents(call: ScoreCall, indexes: list[int]) -> ScoreCall:
    """The call with these documents alone, and their images."""
    used: list[int] = []

    def renumbered(item: WireItem) -> WireItem:
        parts: WireItem = []
        for part in item:
            if isinstance(part, int) and part not in used:
                used.append(part)
            parts.append(used.index(part) if isinstance(part, int) else part)

        return parts

    query = renumbered(call.query)
    documents = [renumbered(call.documents[index]) for index in indexes]
    images = [call.images[index] for index in used]
    return structs.replace(call, query=query, documents=documents, images=images)


async def logits(engine: TorchEngine, call: ScoreCall) -> list[float]:
    found = await verdicts(engine, call)
    assert all(isinstance(verdict, Scored) for verdict in found)
    return [verdict.logit for verdict in found if isinstance(verdict, Scored)]


@pytest.mark.parametrize("query_words", [1, 30, 300])
async def test_a_logit_is_the_same_in_every_company(engine: TorchEngine, query_words: int) -> None:
    rng = Random(f"company of {query_words}")
    ((image,),) = pictures(1, "query")
    for query in ((written(rng, query_words),), (image, written(rng, query_words))):
        call = as_call("find", query, mixed(rng))
        expected = await logits(engine, call)
        for size in SIZES:
            indexes = rng.sample(range(len(expected)), size)
            found = await logits(engine, with_documents(call, indexes))
            assert found == [expected[index] for index in indexes]
