"""Programs that a benchmark starts: their process trees, the cost of each, and their end.

Does not depend on what a program does. Invariant: no process outlives its program's context, and a
paused program uses no processor time.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_SECONDS = 1200
"""Time that a program has until it is ready: an engine compiles first, and the machine may be
busy."""
STOP_SECONDS = 30
"""Time between the request to end and the kill."""
_FOLLOW_SECONDS = 3
"""Time that the other processes of a tree may outlive its first process."""
_POLL_SECONDS = 0.1
_TAIL_LINES = 30
_ROLES = {"EngineCore": "engine", "VLLM::Worker": "engine's worker", "anyio.to_process": "decoders"}
"""Roles of child processes, by a part of their command line."""


class ProgramFailed(Exception):
    """A program ended or never became ready; the text has the end of the program's log."""


class Program:
    """One started program. `role` names its first process, `children` the child processes that have
    ended: their command lines, which name the living ones, cannot be read any more."""

    def __init__(
        self,
        role: str,
        process: subprocess.Popen[bytes],
        log: Path,
        *,
        children: str | None = None,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.role = role
        self.process = process
        self._root = psutil.Process(process.pid)
        self._log = log
        self._children_role = children or role
        self._stop_seconds = stop_seconds

    def await_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true; raises `ProgramFailed` where the program ends first or the
        wait takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ProgramFailed(
                    f"{self.role} ended with {self.process.returncode}.\n{self.tail()}"
                )
            with suppress(OSError):
                if ready():
                    return
            time.sleep(_POLL_SECONDS)

        raise ProgramFailed(
            f"{self.role} did not become ready within {START_SECONDS} s.\n{self.tail()}"
        )

    def tail(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def pause(self) -> None:
        """Stop every process of the tree (SIGSTOP)."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Continue every process of the tree, children first."""
        for process in reversed(self._tree()):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time since the start, user and system, by role.

        The time of child processes that have ended is included: the system adds it to their
        parent's account. The system counts in hundredths of a second.
        """
        by_role: dict[str, float] = defaultdict(float)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                role, times = self._role_of(process), process.cpu_times()
                by_role[role] += times.user + times.system

                ended = times.children_user + times.children_system
                if ended:
                    by_role[self._children_role if process == self._root else role] += ended
        return dict(by_role)

    def memory_bytes(self) -> dict[str, float]:
        """Proportional set size by role: shared pages are counted once."""
        by_role: dict[str, float] = defaultdict(float)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                by_role[self._role_of(process)] += process.memory_full_info().pss
        return dict(by_role)

    def resident(self) -> tuple[int, int]:
        """Bytes of resident memory of the tree: of the programs' own, and of files' pages.

        The system takes the latter back where memory is short. Pages that several processes share
        are counted by each.
        """
        own, of_files = 0, 0
        for process in self._tree():
            with suppress(OSError, psutil.NoSuchProcess):
                status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
                own += _kilobytes(status, "RssAnon") * 1024
                of_files += _kilobytes(status, "RssFile") * 1024
        return own, of_files

    def stop(self) -> None:
        """End every process by its id: SIGTERM to the first, and SIGKILL to those that are left
        after `stop_seconds`."""
        self.resume()
        others = self._tree()[1:]
        self.process.terminate()
        try:
            self.process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

        _, left = psutil.wait_procs(others, timeout=_FOLLOW_SECONDS)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=STOP_SECONDS)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _role_of(self, process: psutil.Process) -> str:
        command = " ".join(process.cmdline())
        return next((role for sign, role in _ROLES.items() if sign in command), self.role)


def cpu_seconds(programs: Iterable[Program]) -> dict[str, float]:
    """Processor time of several programs since their start, by role."""
    return _summed(program.cpu_seconds() for program in programs)


def memory_bytes(programs: Iterable[Program]) -> dict[str, float]:
    """Proportional set size of several programs, by role."""
    return _summed(program.memory_bytes() for program in programs)


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one, so that contexts stop what they started."""

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
    children: str | None = None,
    stop_seconds: float = STOP_SECONDS,
) -> Iterator[Program]:
    """Run a command until the context ends, with `environment` and nothing of this process's own.

    The program has a session of its own, because the terminal's Ctrl-C is for the benchmark alone.
    With `piped`, standard input and output are the caller's pipes; otherwise output goes to `log`,
    as errors always do.
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

    program = Program(role, process, log, children=children, stop_seconds=stop_seconds)
    try:
        yield program
    finally:
        program.stop()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def _kilobytes(status: str, field: str) -> int:
    """A field of `/proc/PID/status`; 0 for a process that has ended."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _summed(by_role: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for amounts in by_role:
        for role, amount in amounts.items():
            total[role] += amount
    return dict(total)
