"""The parts of a device, of memory and of threads that each of several workers gets."""

from __future__ import annotations

import pytest

from service.worker.processes import environment_of_worker
from service.worker.settings import WorkerSettings

MIB = 2**20


def parts(monkeypatch: pytest.MonkeyPatch, **environment: str) -> WorkerSettings:
    """The settings that each of the workers reads, of those that all of them have."""
    for name, value in environment.items():
        monkeypatch.setenv(f"RERANK_{name.upper()}", value)
    for name, value in environment_of_worker({}, WorkerSettings()).items():
        monkeypatch.setenv(name, value)
    return WorkerSettings()


def test_bounds_of_memory_and_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parts(
        monkeypatch,
        processes="2",
        threads="6",
        max_calls_bytes=str(512 * MIB),
        picture_store_bytes=str(301),
    )
    assert (read.processes, read.threads) == (1, 3)
    assert (read.max_calls_bytes, read.picture_store_bytes) == (256 * MIB, 151)
    assert read.engine_arguments == {}


def test_the_memory_of_the_device_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parts(monkeypatch, processes="3", engine="vllm", engine_max_num_seqs="64")
    assert read.engine_arguments == {"gpu_memory_utilization": "0.3", "max_num_seqs": "64"}


def test_memory_without_end_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    read = parts(monkeypatch, processes="2", engine="vllm", engine_kv_cache_memory_bytes="inf")
    assert read.engine_arguments["kv_cache_memory_bytes"] == "inf"


def test_memory_that_is_set_is_divided_and_what_is_no_number_is_left_to_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = parts(
        monkeypatch,
        processes="2",
        engine="vllm",
        engine_gpu_memory_utilization="0.8",
        engine_kv_cache_memory_bytes="1000001",
        engine_kv_offloading_size="much",
    )
    assert read.engine_arguments == {
        "gpu_memory_utilization": "0.4",
        "kv_cache_memory_bytes": "500000",
        "kv_offloading_size": "much",
    }
