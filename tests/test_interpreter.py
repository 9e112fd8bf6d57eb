"""Processes that end without the interpreter's being taken apart: with their exit code, and after
what was registered for their exit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, gc, io, multiprocessing, signal, sys
from service.interpreter import collect_rarely, end, end_now, keep_all, prepare_spawned

prepare_spawned()


class Kept:
    def __del__(self):
        print("taken apart")


KEPT = Kept()


class Interrupted(io.RawIOBase):
    def writable(self):
        return True

    def write(self, content):
        signal.raise_signal(signal.SIGTERM)
        return len(content)


def work(how):
    atexit.register(print, "registered")
    print("collects each", gc.get_threshold()[0])
    if how == "fails":
        raise RuntimeError("the work failed")
    if how == "exits with 3":
        sys.exit(3)


if __name__ == "__main__":
    how = sys.argv[1]
    if how == "ends":
        collect_rarely()
        keep_all()
        print("collects each", gc.get_threshold()[0], gc.get_freeze_count() > 0)
        atexit.register(print, "registered")
        end(5)
    if how == "ends while it writes":
        signal.signal(signal.SIGTERM, lambda *_: end_now(7))
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(Interrupted()))
        print("a line")
        sys.stdout.flush()
    child = multiprocessing.get_context("spawn").Process(target=work, args=(how,))
    child.start()
    child.join()
    print("ended with", child.exitcode)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interpreter") / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def ran(program: Path, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[1],
    )


def test_a_process_ends_with_its_code_after_what_was_registered(program: Path) -> None:
    done = ran(program, "ends")
    assert done.returncode == 5
    assert done.stdout == "collects each 700 True\nregistered\n"


def test_a_signal_ends_a_process_that_writes(program: Path) -> None:
    assert ran(program, "ends while it writes").returncode == 7


@pytest.mark.parametrize(
    ("how", "taken_apart", "code"),
    [("works", False, 0), ("fails", True, 1), ("exits with 3", True, 3)],
)
def test_a_spawned_process_ends_at_once_unless_its_work_failed(
    program: Path, how: str, taken_apart: bool, code: int
) -> None:
    done = ran(program, how)
    said = done.stdout.splitlines()
    assert said[0] == "collects each 50000"
    assert f"ended with {code}" in said
    assert said.count("registered") == 1
    # the parent's own is taken apart, too
    assert said.count("taken apart") == 1 + taken_apart
    assert ("RuntimeError: the work failed" in done.stderr) == (how == "fails")
