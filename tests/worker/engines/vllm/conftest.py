"""Three workers on the real engine, each started once, and the engine that theirs must equal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from service.worker.engines.torch.engine import TorchEngine
from tests.conftest import TINY
from tests.tracing.collector import QUICK, Collector, collecting
from tests.worker.engines.vllm.adapters import dated, make_adapter
from tests.worker.engines.vllm.engine_worker import EngineWorker, engine_worker

ADAPTERS = {"colours": 8, "captions": 16}
DATED = "colours-of-2025"
MAX_CALLS = 16


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters' folders by name."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, (name, rank) in enumerate(ADAPTERS.items()):
        make_adapter(folder / name, rank, seed)
    return {name: folder / name for name in ADAPTERS}


@pytest.fixture(scope="session")
def cached(
    tmp_path_factory: pytest.TempPathFactory, adapters: dict[str, Path]
) -> Iterator[EngineWorker]:
    """A worker as it is by default, with prefix cache and chunked prefill, that serves adapters
    too.

    One is served twice, the second time with its tensors' names of 2025.
    """
    folders = adapters | {
        DATED: dated(adapters["colours"], tmp_path_factory.mktemp("dated") / DATED)
    }
    named = ",".join(f"{name}={folder}" for name, folder in folders.items())
    settings = {"RERANK_ADAPTERS": named, "RERANK_MAX_CALLS": str(MAX_CALLS)}
    with engine_worker(tmp_path_factory.mktemp("cached"), **settings) as worker:
        yield worker


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineWorker]:
    """A worker that keeps neither prefixes nor embeddings, and computes each prompt in one
    piece.

    It is also set to asynchronous scheduling, which vLLM turns off on a CPU.
    """
    settings = {
        "RERANK_ENGINE_ASYNC_SCHEDULING": "true",
        "RERANK_ENGINE_ENABLE_PREFIX_CACHING": "false",
        "RERANK_ENGINE_ENABLE_CHUNKED_PREFILL": "false",
        "RERANK_ENGINE_MAX_NUM_BATCHED_TOKENS": "3200",
        "RERANK_ENGINE_MM_PROCESSOR_CACHE_GB": "0",
    }
    with engine_worker(tmp_path_factory.mktemp("plain"), **settings) as worker:
        yield worker


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The collector of the traces of `chunked`."""
    with collecting() as running:
        yield running


@pytest.fixture(scope="session")
def chunked(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[EngineWorker]:
    """A worker that computes 256 tokens at a time, so that prompts and images are cut, and holds an
    image or two.

    It and its engine send traces of calls that their callers trace.
    """
    settings = {
        "RERANK_ENGINE_MAX_NUM_BATCHED_TOKENS": "256",
        "RERANK_ENGINE_MM_PROCESSOR_CACHE_GB": "0.0001",
    }
    settings |= {"RERANK_OTLP_ENDPOINT": collector.url, "RERANK_TRACE_SAMPLE": "0"} | QUICK
    settings |= {"RERANK_ENGINE_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces"}
    with engine_worker(tmp_path_factory.mktemp("chunked"), **settings) as worker:
        yield worker


@pytest.fixture(scope="session", params=["cached", "plain", "chunked"])
def worker(request: pytest.FixtureRequest) -> EngineWorker:
    """Each of the three in turn."""
    worker: EngineWorker = request.getfixturevalue(request.param)
    return worker


@pytest.fixture(scope="session")
async def oracle() -> AsyncIterator[TorchEngine]:
    """transformers in this process, in fp32."""
    engine = TorchEngine(device="cpu", threads=1)
    await engine.start(resolve(str(TINY)))
    yield engine
    await engine.close()
