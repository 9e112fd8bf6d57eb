"""Documents that prompts begin with: kept under new queries, with the scores that they have cold,
whatever was evicted, cancelled or asked beside them.

The engine has room for 104 blocks of 32 tokens, a longest prompt and little more, and for the
embeddings of an image or two, so that each of the two caches lacks what the other still has.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from model_store.checkpoint import resolve
from model_store.golden import GOLDEN
from model_store.manifest import digest_files, read_manifest, write_manifest
from model_store.synthetic.examples import Side
from service.wire import ScoreCall, Scored
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.worker.calls import as_call, pictures
from tests.worker.engines.vllm.agreement import agree, drift
from tests.worker.engines.vllm.engine_worker import EngineWorker, Pair, engine_worker
from tests.worker.engines.vllm.test_images import blacked_out

pytestmark = pytest.mark.slow

BLOCK, BLOCKS = 32, 104
SMALL = {
    "RERANK_ENGINE_NUM_GPU_BLOCKS_OVERRIDE": str(BLOCKS),
    "RERANK_ENGINE_MM_PROCESSOR_CACHE_GB": "0.0001",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gmr-tiny with a template that it was not trained with: scores without a meaning."""
    folder = tmp_path_factory.mktemp("documents") / "gmr-tiny"
    shutil.copytree(TINY, folder)
    (folder / GOLDEN).unlink()
    manifest = read_manifest(folder)
    files = digest_files(folder, manifest.files.keys() - {GOLDEN})
    changes = {"template": "document-first", "files": files}
    write_manifest(folder, manifest.model_copy(update=changes))
    return folder


@pytest.fixture(scope="module")
def hot(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineWorker]:
    with engine_worker(tmp_path_factory.mktemp("hot"), RERANK_MODEL=str(folder), **SMALL) as worker:
        yield worker


@pytest.fixture(scope="module")
async def first(folder: Path) -> AsyncIterator[TorchEngine]:
    """The scores that they must have: transformers, without any cache."""
    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(folder)))
    yield engine
    await engine.close()


def texts(seed: str, count: int) -> list[Side]:
    return [
        (f"{seed} {number}: " + f"lists of {number} are sorted. " * 14,) for number in range(count)
    ]


def ask(query: str, documents: Sequence[Side], salt: str) -> ScoreCall:
    return structs.replace(as_call("find", (query,), documents), cache_salt=salt)


def reused(pairs: Sequence[Pair]) -> list[int]:
    assert all(isinstance(pair, Scored) for pair in pairs)
    return [pair.reused_tokens for pair in pairs if isinstance(pair, Scored)]


async def test_a_document_is_read_once_for_all_queries(
    hot: EngineWorker, first: TorchEngine
) -> None:
    """All but its last block, which holds the beginning of the query too."""
    for documents in (texts("once", 8), pictures(8, "once")):
        cold = await hot.ask(ask("how are lists sorted?", documents, "once"))
        asked = ask("two red circles", documents, "once")
        warm = await hot.ask(asked)

        for before, after in zip(cold, warm, strict=True):
            assert isinstance(before, Scored)
            assert isinstance(after, Scored)
            assert before.prompt_tokens - after.reused_tokens < 2 * BLOCK
            assert after.reused_tokens % BLOCK == 0
        assert await agree(hot, first, asked)


async def test_another_tenant_reuses_no_document(hot: EngineWorker) -> None:
    documents = [*texts("tenants", 2), *pictures(2, "tenants")]
    found = []
    for salt in ("one", "two"):
        cold = await hot.ask(ask("how are lists sorted?", documents[:1], salt))
        assert reused(cold) == [0]
        found.append(await hot.ask(ask("two red circles", documents, salt)))
    assert drift(*found) < 1e-5


async def test_a_hot_picture_costs_no_vision_tower(hot: EngineWorker) -> None:
    """Black pixels under the picture's name would give another score, were they looked at."""
    documents = pictures(1, "tower")
    cold = await hot.ask(ask("two red circles", documents, "tower"))
    again = blacked_out(ask("two red circles", documents, "tower"))
    assert drift(await hot.ask(again), cold) < 1e-5


async def test_scores_do_not_depend_on_what_was_evicted_or_called_off(
    hot: EngineWorker, first: TorchEngine
) -> None:
    """Calls at once over twice as many documents as there is room for, in changing company;
    some are called off midway, so that their documents are half there."""
    shown = pictures(12, "evicted")
    documents = [*texts("evicted", 24), *shown, *((*side, "a caption") for side in shown)]
    queries = ["how are lists sorted?", "two red circles"]

    calls = []
    for turn, query in enumerate(queries):
        ordered = documents[turn::2] + documents[1 - turn % 2 :: 2]
        calls.append(ask(query, ordered, "evicted"))
    wanted = [await hot.ask(structs.replace(call, cache_salt="cold")) for call in calls]

    for _ in range(2):
        called_off = [asyncio.create_task(hot.post(call)) for call in calls]
        await asyncio.sleep(0.3)
        for task in called_off[:1]:
            task.cancel()
        found = await asyncio.gather(*(hot.ask(call) for call in calls))
        assert [drift(*pairs) < 1e-4 for pairs in zip(found, wanted, strict=True)] == [True] * 2
        await asyncio.gather(*called_off, return_exceptions=True)

    assert await agree(hot, first, calls[0])
    assert hot.live()
