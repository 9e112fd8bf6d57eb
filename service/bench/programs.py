"""A program that a benchmark starts: its whole process tree, what that costs, and its end.

Knows processes, nothing of what they do. Invariant: no process outlives its program's context, and
a program that is paused uses no processor.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_SECONDS = 1200
"""How long a program may take until it is ready: an engine compiles first, and others may be using
the machine."""
_STOP_SECONDS = 30
_FOLLOW_SECONDS = 3
"""How long the others of a tree may live on after its first process."""
_TAIL_LINES = 30
_ROLES = {"EngineCore": "engine", "VLLM::Worker": "engine's worker", "anyio.to_process": "decoders"}


class ProgramFailed(Exception):
    """A program ended or never became ready; its text has the end of the program's log."""


class Program:
    """One started program. `role` names its first process; the others are named by what they say
    they are."""

    def __init__(self, role: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.role = role
        self.process = process
        self._root = psutil.Process(process.pid)
        self._log = log

    def await_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` says so; raises `ProgramFailed` where the program ends before, or
        takes too long."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise ProgramFailed(
                    f"{self.role} ended with {self.process.returncode}.\n{self.tail()}"
                )
            with suppress(OSError):
                if ready():
                    return
            time.sleep(0.1)
        raise ProgramFailed(
            f"{self.role} did not become ready within {START_SECONDS} s.\n{self.tail()}"
        )

    def tail(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def pause(self) -> None:
        """Stop every process where it stands."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in reversed(self._tree()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time used since the start, user and system, by role; the system counts it in
        hundredths of a second."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def memory_bytes(self) -> dict[str, float]:
        """Proportional set size by role: what processes share is counted once."""
        return self._sum(lambda process: float(process.memory_full_info().pss))

    def stop(self) -> None:
        """End every process, by its id; those that do not go when asked are killed."""
        self.resume()
        others = self._tree()[1:]
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _, left = psutil.wait_procs(others, timeout=_FOLLOW_SECONDS)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_STOP_SECONDS)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _sum(self, measure: Callable[[psutil.Process], float]) -> dict[str, float]:
        by_role: dict[str, float] = defaultdict(float)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                by_role[self._role_of(process)] += measure(process)
        return dict(by_role)

    def _role_of(self, process: psutil.Process) -> str:
        said = " ".join(process.cmdline())
        return next((role for sign, role in _ROLES.items() if sign in said), self.role)


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Let a request to terminate this process unwind it, as Ctrl-C does, so that what it started is
    stopped."""

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def started(
    role: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    piped: bool = False,
) -> Iterator[Program]:
    """Run a command until the context ends. `environment` is all that it gets.

    It is out of reach of the terminal's Ctrl-C, which is for the benchmark alone. `piped` leaves
    its standard input and output to the caller; otherwise output goes to `log`, as errors do.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else file,
            stderr=file,
            start_new_session=True,
        )
    program = Program(role, process, log)
    try:
        yield program
    finally:
        program.stop()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
