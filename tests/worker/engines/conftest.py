"""Fixtures of both engines: vLLM's configuration of folders, without weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.worker.engines.vllm.engine_worker import environment, python

PROGRAM = "tests.worker.engines.vllm.configuring_program"
Configure = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def vllm_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configure]:
    """A folder's configuration in vLLM; one process answers for all folders."""
    log = tmp_path_factory.mktemp("configurations") / "log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [python(), "-m", PROGRAM],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        asked, answered = process.stdin, process.stdout
        assert asked
        assert answered

        @cache
        def answer(folder: Path) -> str:
            asked.write(f"{folder}\n")
            asked.flush()
            for line in answered:
                if line.startswith("{"):
                    return line
            raise AssertionError(f"{folder}: {log.read_text(encoding='utf-8')[-4000:]}")

        def configuration(folder: Path) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(answer(folder))
            assert "failed" not in found, found["failed"]
            return found

        yield configuration
        process.terminate()
