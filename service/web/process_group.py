"""Several processes that serve on the same sockets, and the parent process that keeps them running.

Depends on processes and signals, not on what is served. The parent forks each process from one that
has all modules loaded and no thread, passes SIGTERM and SIGINT on, and replaces a process that ends
or hangs, later and later where it ends soon. All of them accept from one listening socket, so no
connection that waits is lost with a process. Invariants: where the first process cannot serve, the
command ends with its exit code; a parent that received a signal ends within the grace period, and
leaves no process behind.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

from service.observability.logs import log

MOST_PROCESSES = 64
HUNG_SECONDS = 60.0
"""A process whose event loop has not run for this time is killed and replaced."""
SOON_SECONDS = 60.0
"""A process that ends within this time after its start is replaced later each time."""
_BACK_OFF_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Time until a process is replaced, by the number of its predecessors that ended soon."""
_CHECK_SECONDS = 1.0
_START_CHECK_SECONDS = 0.02
_AFTER_GRACE_SECONDS = 2.0
"""Time after the grace period at which the parent kills the processes that are left; they end
themselves before that."""
_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 128 + signal.SIGINT}
_FAILED = 1
_BEAT = struct.Struct("d")

Serve = Callable[[int, Callable[[], None]], int]
"""Serves as the process of a number until it is told to end, and returns the exit code. It calls
the function that it is given each time that its event loop runs, once it serves."""


@dataclass(slots=True)
class _Member:
    """One of the processes: its number, and the one that runs under it, if any."""

    number: int
    process: ForkProcess | None = None
    started_at: float = 0.0
    soon_ended: int = 0
    """The predecessors in a row that ended soon after their start."""
    start_at: float = 0.0


class ProcessGroup:
    """The parent of `count` processes."""

    def __init__(self, count: int, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._on_end: Callable[[int], None] = lambda number: None
        self._stop_listening: Callable[[], None] = lambda: None
        self._members = [_Member(number) for number in range(count)]
        self._parent = os.getpid()
        self._context = multiprocessing.get_context("fork")
        self._beats = mmap.mmap(-1, count * _BEAT.size)
        self._pids = mmap.mmap(-1, count * _BEAT.size)

    def pids(self) -> Sequence[int]:
        """The ids of the parent and of the processes that run; any of them may ask."""
        found = [int(self._read(self._pids, member.number)) for member in self._members]
        return [self._parent, *[pid for pid in found if pid]]

    def run(
        self, serve: Serve, *, on_end: Callable[[int], None], stop_listening: Callable[[], None]
    ) -> int:
        """Run the processes until a signal arrives; returns the exit code of the parent.

        `on_end` is called with the number of a process that has ended. `stop_listening` closes the
        parent's own copies of the sockets.
        """
        self._on_end, self._stop_listening = on_end, stop_listening
        with _signals() as signals:
            code = self._start_first(serve, signals)
            if code is None:
                code = self._supervise(serve, signals)
            self._end(signals)
        return code

    def _start_first(self, serve: Serve, signals: int) -> int | None:
        """Start the first process, and wait until it serves; returns the exit code where it ended
        instead, or a signal arrived.

        A failure that all processes would have is so reported once.
        """
        first = self._members[0]
        self._fork(first, serve)
        while not self._read(self._beats, first.number):
            received = self._wait(signals, _START_CHECK_SECONDS)
            if received:
                return self._tell(received)
            if first.process is not None and first.process.exitcode is not None:
                return max(_FAILED, first.process.exitcode)
        return None

    def _supervise(self, serve: Serve, signals: int) -> int:
        """Keep all processes running until a signal arrives; returns the exit code for it."""
        while True:
            now = time.monotonic()
            for member in self._members:
                if member.process is None and now >= member.start_at:
                    self._fork(member, serve)
                elif member.process is not None:
                    self._check(member, now)

            received = self._wait(signals, _CHECK_SECONDS)
            if received:
                return self._tell(received)

    def _fork(self, member: _Member, serve: Serve) -> None:
        """Start a process under a number."""
        self._write(self._beats, member.number, 0.0)
        process = self._context.Process(
            target=self._serve, args=(serve, member.number), name=f"process-{member.number}"
        )
        # a signal that arrives meanwhile is kept for the parent, and is not the child's
        signal.pthread_sigmask(signal.SIG_BLOCK, _EXIT_CODES)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _EXIT_CODES)
        member.process, member.started_at = process, time.monotonic()
        self._write(self._pids, member.number, float(process.pid or 0))

    def _serve(self, serve: Serve, number: int) -> None:
        """The work of a child."""
        signal.set_wakeup_fd(-1)
        for each in _EXIT_CODES:
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _EXIT_CODES)

        def beat() -> None:
            self._write(self._beats, number, time.monotonic())
            if os.getppid() != self._parent:  # the parent was killed
                os.kill(os.getpid(), signal.SIGTERM)

        sys.exit(serve(number, beat))

    def _check(self, member: _Member, now: float) -> None:
        """Kill a process that hangs, and plan the successor of one that has ended."""
        process = member.process
        if process is None:
            return

        last = self._read(self._beats, member.number) or member.started_at
        if process.is_alive() and now - last > HUNG_SECONDS:
            log("a process hangs and is killed", logging.ERROR, process=member.number)
            process.kill()
            process.join()
        if process.is_alive():
            return

        seconds = 0.0
        if now - member.started_at < SOON_SECONDS:
            seconds = _BACK_OFF_SECONDS[min(member.soon_ended, len(_BACK_OFF_SECONDS) - 1)]
            member.soon_ended += 1
        else:
            member.soon_ended = 0
        member.start_at = now + seconds
        member.process = None
        self._write(self._pids, member.number, 0.0)
        self._on_end(member.number)
        log(
            "a process ended and is replaced",
            logging.ERROR,
            process=member.number,
            exit_code=process.exitcode,
            in_seconds=seconds,
        )

    def _wait(self, signals: int, seconds: float) -> list[int]:
        """Wait until a process ends, a signal arrives, or the time is over; returns the signals."""
        running = [member.process for member in self._members if member.process is not None]
        due = [member.start_at for member in self._members if member.process is None]
        seconds = min([seconds, *[max(0.0, at - time.monotonic()) for at in due if at]])
        ready = wait([signals, *[process.sentinel for process in running]], seconds)
        if signals not in ready:
            return []
        return [each for each in os.read(signals, 64) if each in _EXIT_CODES]

    def _tell(self, received: Sequence[int]) -> int:
        """Pass a signal on to every process; returns the parent's exit code."""
        number = signal.Signals(received[0])
        self._stop_listening()
        log("told to end", signal=number.name, processes=len(self._members))
        for member in self._members:
            if member.process is not None and member.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.process.pid, number)
        return _EXIT_CODES[number]

    def _end(self, signals: int) -> None:
        """Wait until every process has ended; kill those that are left after the grace period, or
        at a second signal."""
        self._stop_listening()
        deadline = time.monotonic() + self._grace_seconds + _AFTER_GRACE_SECONDS
        for member in self._members:
            while member.process is not None and member.process.is_alive():
                left = deadline - time.monotonic()
                if left <= 0 or wait([signals, member.process.sentinel], left) == [signals]:
                    deadline = 0.0
                    member.process.kill()
                member.process.join(_CHECK_SECONDS if deadline == 0.0 else 0)

    def _read(self, table: mmap.mmap, number: int) -> float:
        value: float = _BEAT.unpack_from(table, number * _BEAT.size)[0]
        return value

    def _write(self, table: mmap.mmap, number: int, value: float) -> None:
        _BEAT.pack_into(table, number * _BEAT.size, value)


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """A file from which the numbers of the signals are read that arrive while the context lasts."""

    def ignore(number: int, frame: FrameType | None) -> None:
        """The number is read from the file."""

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    before = {each: signal.signal(each, ignore) for each in _EXIT_CODES}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(reader)
        os.close(writer)
