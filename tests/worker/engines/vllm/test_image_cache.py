"""The cache of image embeddings covers the prefix cache, within the memory that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.checkpoint import Checkpoint, resolve
from model_store.sizing.network import network_cost
from service.worker.engines.vllm.image_cache import image_cache_gib, memory_bytes
from tests.conftest import TINY
from tests.qwen2_vl import write_qwen2_vl

GIB = 2**30
PLENTY = 10**15


def jina(folder: Path) -> Checkpoint:
    return resolve(str(write_qwen2_vl(folder / "jina-reranker-m0", ranking=True)))


def test_it_covers_the_prefix_cache_of_documents(tmp_path: Path) -> None:
    checkpoint = jina(tmp_path)
    cost = network_cost(str(checkpoint.folder))
    found = image_cache_gib(checkpoint, 300 * GIB, 4, PLENTY)

    assert checkpoint.family.cacheable_side == "document"
    assert found * GIB / cost.image_bytes == pytest.approx(300 * GIB / cost.kv_bytes)
    assert found > 4


def test_it_is_bounded_by_the_hosts_memory_and_by_vllms_default(tmp_path: Path) -> None:
    checkpoint = jina(tmp_path)
    assert image_cache_gib(checkpoint, PLENTY, 4, 64 * GIB) == 16
    assert image_cache_gib(checkpoint, PLENTY, 4, 8 * GIB) == 4
    assert image_cache_gib(checkpoint, GIB, 4, PLENTY) == 4


def test_where_the_query_comes_first_it_is_vllms_default() -> None:
    assert image_cache_gib(resolve(str(TINY)), PLENTY, 4, PLENTY) == 4


def test_the_memory_is_the_containers_where_it_has_a_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = memory_bytes(limit)
    for content, wanted in (("max\n", machine), ("1048576\n", 2**20), (f"{10**18}", machine)):
        limit.write_text(content, encoding="ascii")
        assert memory_bytes(limit) == wanted
