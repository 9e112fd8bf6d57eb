"""The recorder of answers: takes each answer as it is given, and makes its record afterwards.

The module depends on answers, the window and the journal, on no HTTP. Invariant: an answer is never
late and never fails because of it; what exceeds the room in memory is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio.to_thread

from service.gateway.admission.authentication import Caller
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.feedback.journal import Journal
from service.gateway.feedback.lines import content_line, pictures_of
from service.gateway.feedback.record import Answered, AnswerRecord, RecordKeys, answered
from service.gateway.feedback.room import BufferRoom
from service.gateway.feedback.window import AnswerWindow
from service.observability.feedback_metrics import FEEDBACK_ANSWERS
from service.observability.logs import log
from service.observability.request_context import request_id

_AT_ONCE = 64
"""Answers whose records are made in one visit to a thread."""
CLOSE_SECONDS = 5.0
_ANONYMOUS_CHARS = 16


@dataclass(frozen=True, slots=True)
class Permissions:
    """The tenants that may send feedback, and those whose content is kept; an empty set is all.

    `share` is that of the answers of which feedback is kept.
    """

    tenants: frozenset[str] = frozenset()
    share: float = 1.0
    content: bool = False
    content_tenants: frozenset[str] = frozenset()

    def may_send(self, caller: Caller) -> bool:
        return _is_listed(caller, self.tenants)

    def keeps_content(self, caller: Caller) -> bool:
        return self.content and _is_listed(caller, self.content_tenants)


def _is_listed(caller: Caller, names: Collection[str]) -> bool:
    return not names or caller.name() in names


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An answer whose record is to be made; `made` is set once it is in the window."""

    answer: Answered
    keeps_content: bool
    size: int
    made: asyncio.Event


class AnswerRecorder:
    """Records the answers of callers that may send feedback."""

    def __init__(
        self,
        keys: RecordKeys,
        window: AnswerWindow,
        journal: Journal,
        room: BufferRoom,
        permissions: Permissions,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._window = window
        self.journal = journal
        self._room = room
        self.permissions = permissions
        self._clock = clock
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._waiting: dict[tuple[str, str], _Waiting] = {}

    def offer(self, caller: Caller, query: RerankQuery, result: RerankResult) -> None:
        """Take an answer. One without results, or with a query for each document, is no ranking."""
        try:
            self._offer(caller, query, result)
        except Exception as failure:  # an answer is given, whatever becomes of its record
            log("an answer was not recorded", logging.ERROR, failure=failure)

    def _offer(self, caller: Caller, query: RerankQuery, result: RerankResult) -> None:
        if query.paired or not result.ranked or not self.permissions.may_send(caller):
            return
        if not self.is_sampled(request_id.get()):
            FEEDBACK_ANSWERS.labels("unsampled").inc()
            return

        answer = answered(
            caller, self.tenant(caller), request_id.get(), self._clock(), query, result
        )
        if not answer.documents:
            return
        size = answer.size()
        if not self._room.take(size):
            FEEDBACK_ANSWERS.labels("dropped").inc()
            return
        waiting = _Waiting(answer, self.permissions.keeps_content(caller), size, asyncio.Event())
        self._waiting[answer.scope, answer.request_id] = waiting
        self._queue.put_nowait(waiting)

    def is_sampled(self, request_id: str) -> bool:
        """True if feedback is kept of the answers with a request id."""
        return self._keys.is_sampled(request_id, self.permissions.share)

    def tenant(self, caller: Caller) -> str:
        """The name of a caller in the folder: its tenant's, `key:` and the name of a key without a
        tenant, or one that tells nothing of its key; "" where there are no keys."""
        kind, _, name = caller.scope.partition(":")
        if kind in ("tenant", ""):
            return name
        if kind == "key":  # it may have the name of a tenant that it is not of
            return caller.scope
        return self._keys.scope_id(caller.scope).hex()[:_ANONYMOUS_CHARS]

    async def find(self, caller: Caller, request_id: str) -> AnswerRecord | None:
        """The record of a caller's request, also where it is just being made; raises
        `Overloaded`."""
        await self._until_made(caller, request_id)
        return await self._window.get(caller.scope, request_id)

    async def forget(self, caller: Caller, request_id: str) -> None:
        """Forget the record of a caller's request."""
        await self._until_made(caller, request_id)
        await self._window.remove(caller.scope, request_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Make records while the context lasts, and those that wait at its end, within a bound."""
        async with self.journal.running():
            making = asyncio.create_task(self._run())
            try:
                yield
            finally:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._queue.join(), CLOSE_SECONDS)
                making.cancel()
                await asyncio.gather(making, return_exceptions=True)
                await self._window.close()

    async def _until_made(self, caller: Caller, request_id: str) -> None:
        """Wait for the record of a caller's request, if it is being made."""
        waiting = self._waiting.get((caller.scope, request_id))
        if waiting is not None:
            await waiting.made.wait()

    async def _run(self) -> None:
        await self._window.warm_up()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < _AT_ONCE and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                made = await anyio.to_thread.run_sync(self._made, batch)
                for waiting, (record, line) in zip(batch, made, strict=True):
                    self._keep(waiting, record, line)
            except Exception as failure:
                log("answers were not recorded", logging.ERROR, failure=failure)
            finally:
                for waiting in batch:
                    self._release(waiting)

    def _made(self, batch: Sequence[_Waiting]) -> list[tuple[AnswerRecord, bytes | None]]:
        """The record of each answer, and the line of its content where that is kept."""
        made: list[tuple[AnswerRecord, bytes | None]] = []
        for waiting in batch:
            line = content_line(waiting.answer) if waiting.keeps_content else None
            made.append((self._keys.record(waiting.answer), line))
        return made

    def _keep(self, waiting: _Waiting, record: AnswerRecord, line: bytes | None) -> None:
        self._window.put(waiting.answer.scope, record)
        FEEDBACK_ANSWERS.labels("recorded").inc()
        if line is None:
            return
        pictures = {picture.digest: picture.data for picture in pictures_of(waiting.answer)}
        # a line without all of its pictures would be of no use
        if all(self.journal.keep_picture(*picture) for picture in pictures.items()):
            self.journal.append("content", line)

    def _release(self, waiting: _Waiting) -> None:
        """Give back the room of an answer, and let feedback on it look into the window."""
        key = waiting.answer.scope, waiting.answer.request_id
        if self._waiting.get(key) is waiting:
            del self._waiting[key]
        self._room.give_back(waiting.size)
        waiting.made.set()
        self._queue.task_done()
