"""Several workers on one GPU run under CUDA's Multi-Process Service, where it is installed."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from service.bench.service import has_mps, start_mps
from tests.bench.test_plan import plan

MPS = """#!/bin/sh
echo "$$ $1 $CUDA_MPS_PIPE_DIRECTORY" > "$CUDA_MPS_LOG_DIRECTORY/started"
exec sleep 600
"""


@pytest.fixture
def mps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name, which only a machine with a GPU has, first on the path."""
    program = tmp_path / "bin" / "nvidia-cuda-mps-control"
    program.parent.mkdir()
    program.write_text(MPS, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)


@pytest.mark.usefixtures("mps")
def test_it_runs_in_the_foreground_and_ends_with_the_service(tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = start_mps(plan(device="cuda", workers=2), tmp_path, stack)
        written = Path(found["CUDA_MPS_LOG_DIRECTORY"]) / "started"
        deadline = time.monotonic() + 60
        while not (written.exists() and written.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid, option, pipes = written.read_text(encoding="utf-8").split()
        assert (option, pipes) == ("-f", found["CUDA_MPS_PIPE_DIRECTORY"])
        assert psutil.pid_exists(int(pid))
    assert not psutil.pid_exists(int(pid))


@pytest.mark.usefixtures("mps")
@pytest.mark.parametrize(("device", "workers"), [("cuda", 1), ("cpu", 2)])
def test_one_worker_and_a_cpu_need_none(tmp_path: Path, device: str, workers: int) -> None:
    with ExitStack() as stack:
        assert start_mps(plan(device=device, workers=workers), tmp_path, stack) == {}


def test_a_machine_without_it_runs_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with ExitStack() as stack:
        assert not has_mps()
        assert start_mps(plan(device="cuda", workers=2), tmp_path, stack) == {}
