"""A program is its whole process tree: measured, paused and stopped as one, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service.bench.programs import Program, ProgramFailed, cleaning_up, started

SPINNING_CHILD = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'while True: pass']).wait()"
)
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    " time.sleep(600)"
)


def run(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def tree(program: Program) -> list[psutil.Process]:
    root = psutil.Process(program.process.pid)
    return [root, *root.children(recursive=True)]


def spent(program: Program) -> float:
    return sum(program.cpu_seconds().values())


def test_a_program_that_is_paused_uses_no_processor_and_goes_on_when_resumed(
    tmp_path: Path,
) -> None:
    with started("spinner", run(SPINNING_CHILD), os.environ, tmp_path / "log") as program:
        until(lambda: spent(program) > 0.1 and len(tree(program)) == 2)
        program.pause()
        until(lambda: {process.status() for process in tree(program)} == {psutil.STATUS_STOPPED})
        before = spent(program)
        time.sleep(0.3)
        assert spent(program) == before
        program.resume()
        until(lambda: spent(program) > before)


@pytest.mark.parametrize("paused", [False, True])
def test_nothing_of_a_program_outlives_its_context(tmp_path: Path, paused: bool) -> None:
    with started("spinner", run(SPINNING_CHILD), os.environ, tmp_path / "log") as program:
        until(lambda: len(tree(program)) == 2)
        processes = tree(program)
        if paused:
            program.pause()
    assert not any(process.is_running() for process in processes)


def test_a_program_that_does_not_go_when_asked_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.bench.programs._STOP_SECONDS", 0.2)
    with started("deaf", run(DEAF), os.environ, tmp_path / "log") as program:
        until(lambda: "deaf" in program.tail())
    assert program.process.returncode == -signal.SIGKILL


def test_a_program_that_ends_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('\\n'.join(map(str, range(100)))); sys.exit('no such model')"
    with (
        started("worker", run(code), os.environ, tmp_path / "log") as program,
        pytest.raises(
            ProgramFailed, match=r"(?s)^worker ended with 1\.\n71\n.*\n99\nno such model$"
        ) as failed,
    ):
        program.await_ready(lambda: False)
    assert "\n70\n" not in str(failed.value)


def test_memory_and_time_are_by_role(tmp_path: Path) -> None:
    code = SPINNING_CHILD.replace(
        "'while True: pass'", "'while True: pass', 'VLLM::Engine' + 'Core'"
    )
    with started("front end", run(code), os.environ, tmp_path / "log") as program:
        until(lambda: program.cpu_seconds().get("engine", 0.0) > 0.1)
        memory = program.memory_bytes()
        assert set(memory) == {"front end", "engine"}
        assert min(memory.values()) > 2**20


def test_a_request_to_terminate_stops_what_was_started(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path\nfrom service.bench.programs import"
        " cleaning_up, started\nwith cleaning_up(), started('sleeper', ['sleep', '600'],"
        " os.environ, Path(sys.argv[1])) as program:\n    print(program.process.pid, flush=True);"
        " time.sleep(600)\n"
    )
    with subprocess.Popen(
        [*run(code), str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout
        sleeper = psutil.Process(int(bench.stdout.readline()))
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    assert not sleeper.is_running()


def test_the_handler_of_before_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), cleaning_up():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
