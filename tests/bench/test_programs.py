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

from service.bench.programs import (
    Program,
    ProgramFailed,
    cleaning_up,
    cpu_seconds,
    memory_bytes,
    started,
)

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


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started("deaf", run(DEAF), os.environ, log, stop_seconds=0.2) as program:
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


@pytest.mark.parametrize(("children", "role"), [("decoders", "decoders"), (None, "gateway")])
def test_time_of_children_that_have_ended_is_counted(
    tmp_path: Path, children: str | None, role: str
) -> None:
    """Under a role of their own, where the program has one for them."""
    child = "import time\nwhile time.process_time() < 0.5: pass"
    code = (
        f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {child!r}]);"
        " print('over', flush=True); time.sleep(600)"
    )
    log = tmp_path / "log"
    with started("gateway", run(code), os.environ, log, children=children) as program:
        until(lambda: "over" in program.tail())
        assert len(tree(program)) == 1
        assert program.cpu_seconds()[role] >= 0.4  # counted in hundredths


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


def test_several_programs_are_added_up_by_role(tmp_path: Path) -> None:
    spinner = run("while True: pass")
    with (
        started("one", spinner, os.environ, tmp_path / "1") as one,
        started("other", spinner, os.environ, tmp_path / "2") as other,
        started("other", spinner, os.environ, tmp_path / "3") as third,
    ):
        until(lambda: min(map(spent, (one, other, third))) > 0.05)
        at_least = spent(other) + spent(third)
        assert cpu_seconds([one, other, third])["other"] >= at_least
        assert set(memory_bytes([one, other, third])) == {"one", "other"}


def test_the_handler_of_before_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), cleaning_up():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
