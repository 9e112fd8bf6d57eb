"""Token buckets and requests in flight that the processes of a gateway share, in shared memory.

Depends on scopes, rates and times, like the buckets of one process. The parent process makes the
table before it forks the others. A scope's bucket is one of the `_WINDOW` rows from the row that
its hash names; where none of them is free, the one is reused that a new bucket differs from least.
Requests in flight are counted for each process, so that those of one that was killed are forgotten.
Invariant: a bucket is changed by one process at a time, and a process that stops meanwhile holds
the others up for `_LOCK_SECONDS` at most.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.gateway.admission.buckets import in_debt, refilled

ROWS = 32_768
"""More than three times the API keys that a gateway may have."""
_WINDOW = 16
_ROW = struct.Struct("<16sdd")
"""The hash of a scope, the level of its bucket, and the time of that level."""
_COUNT = struct.Struct("<I")
_FREE = bytes(16)
_LOCK_SECONDS = 0.25
_RETRY_SECONDS = 0.0002


class SharedBuckets:
    """The buckets of all scopes, for the processes numbered from 0 to `processes` - 1."""

    def __init__(self, processes: int, rows: int = ROWS) -> None:
        self._number = 0
        self._processes = processes
        self._rows = rows
        self._counts_of_process = rows * _COUNT.size
        self._table = mmap.mmap(-1, rows * _ROW.size)
        self._counts = mmap.mmap(-1, processes * self._counts_of_process)
        self._lock = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process

    def enter_as(self, number: int) -> None:
        """Count from now on as the process of a number, in a process that was forked."""
        self._number = number

    def forget(self, number: int) -> None:
        """Count the requests in flight of a process no longer, because it has ended."""
        start = number * self._counts_of_process
        with self._locked():
            self._counts[start : start + self._counts_of_process] = bytes(self._counts_of_process)

    def level(self, scope: str, rate: float, now: float) -> float:
        with self._locked():
            return self._charge(scope, 0.0, rate, now)

    def charge(self, scope: str, pairs: float, rate: float, now: float) -> float:
        with self._locked():
            return self._charge(scope, pairs, rate, now)

    def refund(self, scope: str, pairs: float) -> None:
        with self._locked():
            row = self._row(scope)
            key, level, at = self._read(row)
            self._write(row, key, level + pairs, at)

    def enter(self, scope: str, most: int) -> bool:
        with self._locked():
            row = self._row(scope)
            if self._in_flight(row) >= most:
                return False
            self._add(row, 1)
            return True

    def leave(self, scope: str) -> None:
        with self._locked():
            self._add(self._row(scope), -1)

    def _charge(self, scope: str, pairs: float, rate: float, now: float) -> float:
        """Refill a bucket, and take pairs from it unless it is in debt; returns the level before
        they were taken."""
        row = self._row(scope)
        key, level, at = self._read(row)
        # processes read the same clock, each a little earlier or later
        level = refilled(level, max(0.0, now - at), rate)
        left = level if in_debt(level) else level - pairs
        self._write(row, key, left, max(at, now))
        return level

    def _row(self, scope: str) -> int:
        """The row of a scope's bucket; a new bucket where it has none."""
        key = hashlib.blake2b(scope.encode(), digest_size=16).digest()
        home = int.from_bytes(key[:8])
        window = [(home + offset) % self._rows for offset in range(_WINDOW)]
        for row in window:
            found = self._read(row)[0]
            if found == key:
                return row
            if found == _FREE:
                break
        else:
            row = max(window, key=self._newness)

        self._write(row, key, math.inf, 0.0)
        for number in range(self._processes):
            _COUNT.pack_into(self._counts, self._count_at(number, row), 0)
        return row

    def _newness(self, row: int) -> tuple[bool, float]:
        """Greater for a row that differs less from a new one."""
        return not self._in_flight(row), self._read(row)[1]

    def _in_flight(self, row: int) -> int:
        """The requests in flight of all processes."""
        counts = [
            _COUNT.unpack_from(self._counts, self._count_at(number, row))[0]
            for number in range(self._processes)
        ]
        return sum(counts)

    def _add(self, row: int, more: int) -> None:
        at = self._count_at(self._number, row)
        count = _COUNT.unpack_from(self._counts, at)[0]
        _COUNT.pack_into(self._counts, at, max(0, count + more))

    def _count_at(self, number: int, row: int) -> int:
        return number * self._counts_of_process + row * _COUNT.size

    def _read(self, row: int) -> tuple[bytes, float, float]:
        key, level, at = _ROW.unpack_from(self._table, row * _ROW.size)
        return key, level, at

    def _write(self, row: int, key: bytes, level: float, at: float) -> None:
        _ROW.pack_into(self._table, row * _ROW.size, key, level, at)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the table, or give up waiting for a process that was stopped while it held it.

        The system releases the lock of a process that ends.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    break
            time.sleep(_RETRY_SECONDS)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)
