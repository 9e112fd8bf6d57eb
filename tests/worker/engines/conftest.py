"""Fixtures of both engines: vLLM in one process, for folders of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.worker.engines.vllm.one_process import Answer, WorkerInProcess, one_process, worker_of

Configure = Callable[[Path], dict[str, Any]]
Serve = Callable[..., WorkerInProcess]


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answer]:
    """A process with vLLM, which answers for all folders."""
    with one_process(tmp_path_factory.mktemp("vllm")) as answer:
        yield answer


@pytest.fixture(scope="session")
def vllm_configuration(vllm: Answer) -> Configure:
    """A folder's configuration in vLLM, without weights."""

    found = cache(lambda folder: vllm(folder=str(folder)))
    return lambda folder: dict(found(folder))


@pytest.fixture(scope="session")
def vllm_worker(vllm: Answer) -> Serve:
    """A worker of a folder on vLLM, in whose place the next one is started."""

    def serve(model: Path, **arguments: str) -> WorkerInProcess:
        return worker_of(vllm, model, **arguments)

    return serve
