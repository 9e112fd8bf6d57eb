"""The prefix of all candidates is computed once, for each tenant by itself."""

from __future__ import annotations

import pytest
from msgspec import structs

from model_store.checkpoint import resolve
from service.wire import ScoreCall, Scored
from service.worker.engines.prompts import prompt_image
from tests.conftest import TINY
from tests.worker.calls import as_call, pictures
from tests.worker.engines.vllm.agreement import drift
from tests.worker.engines.vllm.engine_worker import EngineWorker, Pair

pytestmark = pytest.mark.slow

BLOCK = 32
"""Tokens that the cache keeps or forgets together, on a CPU."""


def call(seed: str) -> tuple[ScoreCall, int]:
    """A call, and the length of the prefix that its documents share."""
    (picture,) = pictures(1, seed)[0]
    text = f"{seed}: " + "how are lists sorted? " * 40
    asked = as_call(
        "find", (text, picture), [(f"document {number} " * (number + 1),) for number in range(30)]
    )
    prefix = resolve(str(TINY)).family.question(("find",), (text, prompt_image(asked.images[0])))
    return asked, len(prefix.ids)


def reused(pairs: list[Pair]) -> list[int]:
    assert all(isinstance(pair, Scored) for pair in pairs)
    return [pair.reused_tokens for pair in pairs if isinstance(pair, Scored)]


async def test_all_candidates_but_the_first_reuse_the_prefix(cached: EngineWorker) -> None:
    asked, prefix = call("reuse")
    asked = structs.replace(asked, cache_salt="reuse")
    first, *others = reused(await cached.ask(asked))

    assert first == 0
    assert all(prefix - BLOCK < tokens < prefix + BLOCK for tokens in others)
    assert prefix > 5 * BLOCK


async def test_another_tenant_reuses_nothing(cached: EngineWorker) -> None:
    asked, _ = call("tenants")
    asked = structs.replace(asked, documents=asked.documents[:1])
    salts = ("one", "two", "three")
    found = [await cached.ask(structs.replace(asked, cache_salt=salt)) for salt in salts]
    assert [reused(pairs) for pairs in found] == [[0], [0], [0]]

    again = [await cached.ask(structs.replace(asked, cache_salt=salt)) for salt in salts]
    assert all(reused(pairs)[0] > 0 for pairs in again)
    assert all(drift(pairs, found[0]) < 1e-5 for pairs in (*found, *again))


async def test_an_adapter_reuses_nothing_of_the_models(cached: EngineWorker) -> None:
    asked, _ = call("adapter")
    asked = structs.replace(asked, documents=asked.documents[:1])
    await cached.ask(asked)
    assert reused(await cached.ask(structs.replace(asked, model="colours"))) == [0]
    assert reused(await cached.ask(structs.replace(asked, model="captions"))) == [0]


async def test_without_a_prefix_cache_nothing_is_reused(plain: EngineWorker) -> None:
    asked, _ = call("plain")
    for _ in range(2):
        assert set(reused(await plain.ask(asked))) == {0}
