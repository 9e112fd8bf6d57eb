"""The journal of feedback: lines and pictures that are written behind the requests.

The module depends on files and on room in memory, on no record. Invariant: no request waits for the
file system, unless it asks to; what finds no room, or cannot be written, is dropped and counted by
its kind; a process that is killed loses what has waited for less than `FLUSH_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.gateway.circuit_breaker import Breaker
from service.gateway.feedback.files import FeedbackFiles
from service.gateway.feedback.lines import MAX_LINE_BYTES
from service.gateway.feedback.room import BufferRoom
from service.observability.feedback_metrics import FEEDBACK_LINES
from service.observability.logs import log

FLUSH_SECONDS = 0.5
SWEEP_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""Time to write what waits when the gateway ends."""
_FAILURES, _PAUSE_SECONDS = 3, 5.0
"""Failed writes in a row after which the folder is left alone for a while."""
_ENTRY_BYTES = 128


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A line, or the bytes of a picture with its digest; `written` is set to the outcome."""

    kind: str
    data: bytes
    digest: bytes = b""
    written: asyncio.Future[bool] | None = None


class Journal:
    """Writes to the files of one process."""

    def __init__(self, files: FeedbackFiles, room: BufferRoom) -> None:
        self._files = files
        self._room = room
        self._waiting: list[_Entry] = []
        # a thread of its own, so that a file system that hangs blocks nothing else
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self._breaker = Breaker(failures=_FAILURES, seconds=_PAUSE_SECONDS)
        self._failed = False
        self.losses = 0
        """Rounds of writing in which something that had been taken was lost."""

    def append(self, kind: str, line: bytes) -> bool:
        """Take a line to be written; False where it was dropped."""
        return self._append(_Entry(kind, line), MAX_LINE_BYTES)

    async def write(self, kind: str, line: bytes) -> bool:
        """Take a line, and wait until it is written; False where it is not."""
        written = asyncio.get_running_loop().create_future()
        taken = self._append(_Entry(kind, line, written=written), MAX_LINE_BYTES)
        return taken and await written

    def keep_picture(self, digest: bytes, data: bytes) -> bool:
        """Take a picture to be kept; False where it was dropped."""
        return self._append(_Entry("picture", data, digest), len(data))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write and sweep while the context lasts; at its end write what waits, within a bound."""
        ended = asyncio.Event()
        writing = asyncio.create_task(self._run(ended))
        try:
            yield
        finally:
            ended.set()
            await self._close(writing)

    def _append(self, entry: _Entry, max_bytes: int) -> bool:
        if len(entry.data) > min(max_bytes, self._files.max_entry_bytes):
            FEEDBACK_LINES.labels(entry.kind, "too_large").inc()
            return False
        if self._breaker.state == "open":  # it would be dropped
            FEEDBACK_LINES.labels(entry.kind, "failed").inc()
            return False
        if not self._room.take(len(entry.data) + _ENTRY_BYTES):
            FEEDBACK_LINES.labels(entry.kind, "dropped").inc()
            return False
        self._waiting.append(entry)
        return True

    async def _run(self, ended: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        swept = -SWEEP_SECONDS
        while not ended.is_set():
            if clock() - swept >= SWEEP_SECONDS:
                await self._in_thread(self._files.sweep)
                swept = clock()
            await self._flush()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), FLUSH_SECONDS)

        await self._flush()
        await self._in_thread(self._files.close)

    async def _close(self, writing: asyncio.Task[None]) -> None:
        await asyncio.wait({writing}, timeout=CLOSE_SECONDS)
        if not writing.done():
            log("feedback was not written in time", logging.WARNING)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _flush(self) -> None:
        """Write what waits; it keeps its room in memory until then."""
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        written: list[_Entry] = []
        try:
            if self._breaker.enter():
                succeeded = await self._in_thread(partial(self._write, entries, written))
                self._breaker.leave(succeeded)
        finally:
            self._count(entries, written)
            for entry in entries:
                self._room.give_back(len(entry.data) + _ENTRY_BYTES)

    def _count(self, entries: Sequence[_Entry], written: Sequence[_Entry]) -> None:
        kept = set(written)
        for entry in entries:
            if entry.written is not None and not entry.written.done():
                entry.written.set_result(entry in kept)
        done = Counter(entry.kind for entry in written)
        lost = Counter(entry.kind for entry in entries) - done
        for outcome, counts in (("written", done), ("failed", lost)):
            for kind, count in counts.items():
                FEEDBACK_LINES.labels(kind, outcome).inc(count)
        self.losses += bool(lost)

    def _write(self, entries: Sequence[_Entry], written: list[_Entry]) -> None:
        """Write pictures, and then lines, as no line names a picture that is not there yet. What
        was written is added to `written`; raises the first failure once everything was tried."""
        failures: list[OSError] = []
        pictures = [[entry] for entry in entries if entry.digest]
        for together in [*pictures, *self._in_pieces(entries)]:
            first = together[0]
            try:
                if first.digest:
                    self._files.keep_picture(first.digest, first.data)
                else:
                    lines = [entry.data for entry in together]
                    self._files.write(lines, forget=first.kind == "forget")
                written += together
            except OSError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _in_pieces(self, entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
        """The lines that are written together: of one file, and not too many for it."""
        for is_forget in (False, True):
            piece: list[_Entry] = []
            size = 0
            for entry in entries:
                if entry.digest or (entry.kind == "forget") != is_forget:
                    continue
                if piece and size + len(entry.data) > self._files.max_entry_bytes:
                    yield piece
                    piece, size = [], 0
                piece.append(entry)
                size += len(entry.data)
            if piece:
                yield piece

    async def _in_thread(self, work: Callable[[], None]) -> bool:
        """True where work in the thread succeeded; the first failure in a row is logged."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as failure:
            reason = os.strerror(failure.errno) if failure.errno else "unknown"
            self._note_failure(logging.WARNING, reason=reason)
            return False
        except Exception as failure:
            self._note_failure(logging.ERROR, failure=failure)
            return False
        if self._failed:
            log("the folder of feedback can be used again")
            self._failed = False
        return True

    def _note_failure(self, level: int, **fields: Any) -> None:
        if not self._failed:
            log(
                "the folder of feedback fails: what is to be written there is dropped",
                level,
                **fields,
            )
        self._failed = True
