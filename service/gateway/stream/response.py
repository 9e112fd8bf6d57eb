"""An answer of lines to a body of lines, sent while the body is read.

Depends on lines as bytes, not on their meaning. The body is read only as fast as its lines are
answered; answers that the client does not read yet are kept up to a bound, so that a client that
sends everything first is answered, too. Invariants: at most `lines_at_once` lines are read and not
answered; every line that was read is answered unless the client disconnects; a stream ends when
nothing arrives for `idle_seconds` and no line is left, and when the process is drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import DeadlineExceeded, Overloaded, RerankError
from service.gateway.stream.bounds import StreamBounds
from service.gateway.stream.line_dialect import LineId, error_line, id_of
from service.gateway.stream.lines import Line, LineSplitter
from service.gateway.stream.unsent import UnsentAnswers
from service.observability.metrics import STREAM_LINE_SECONDS, STREAM_LINES, STREAM_LINES_IN_FLIGHT
from service.observability.request_context import add_log_fields, request_id
from service.web.asgi import draining
from service.web.full_duplex import connection_of

MEDIA_TYPE = "application/x-ndjson"
UNSENT_BYTES = 16 * 2**20
"""Bytes of answers that are kept for a client that does not read yet."""
_WATCH_SECONDS = 0.2
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Proxies pass lines on as they come: nginx reads the second header."""


@dataclass(frozen=True, slots=True)
class AnsweredLine:
    """The line that answers a line, and its outcome: `ok`, or the code of its error."""

    content: bytes
    outcome: str


AnswerLine = Callable[[Line, LineId], Awaitable[AnsweredLine]]
"""Answers a line of some id; it raises nothing, and has no answer where it is cancelled."""


class LineStream(Response):
    """The response to a stream of lines.

    `hold` is called with the bytes of the unfinished line, and waits until there is room for them;
    `reserve` is called with each change of the bytes of unsent answers.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        request: Request,
        chunks: AsyncIterator[bytes],
        bounds: StreamBounds,
        answer: AnswerLine,
        *,
        hold: Callable[[int], Awaitable[None]],
        reserve: Callable[[int], None],
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._request = request
        self._chunks = chunks
        self._bounds = bounds
        self._make_answer = answer
        self._hold = hold

        self._connection = connection_of(request)
        self._unsent = UnsentAnswers(UNSENT_BYTES, reserve, self._connection.set_answers_wait)
        self._splitter = LineSplitter(bounds.line_bytes)
        self._places = asyncio.Semaphore(bounds.lines_at_once)
        self._lines: set[asyncio.Task[None]] = set()
        self._unanswered: set[asyncio.Task[None]] = set()
        self._body_ended = asyncio.Event()
        self._error: RerankError | None = None
        """The reason for which the stream ends early."""
        self._arrived_at = asyncio.get_running_loop().time()
        self._answered = self._failed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection.begin_duplex()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks, send)
        except BaseExceptionGroup as failures:
            if failures.subgroup(ClientDisconnect):
                raise ClientDisconnect from None
            raise
        finally:
            self._unsent.discard()
            add_log_fields(lines=self._answered, failed_lines=self._failed or None)

    async def _serve(self, tasks: asyncio.TaskGroup, send: Send) -> None:
        reader = tasks.create_task(self._read(tasks))
        await asyncio.sleep(0)  # the reader asks for the body: a client may wait for that
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        writer = tasks.create_task(self._write(send))
        watcher = tasks.create_task(self._watch(reader))

        await self._body_ended.wait()
        while self._lines:
            await asyncio.wait(self._lines)
        if self._error:
            await self._unsent.put(error_line(self._error, request_id.get(), None, None))
        self._connection.end_duplex()
        await self._unsent.close()
        await writer

        reader.cancel()
        watcher.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Read the body, start the work on its lines, and then wait for a disconnect."""
        try:
            async for chunk in self._chunks:
                self._arrived_at = asyncio.get_running_loop().time()
                for line in self._splitter.feed(chunk):
                    await self._start(line, tasks)
                await self._hold(self._splitter.held)

            for line in self._splitter.end():
                await self._start(line, tasks)
            await self._hold(0)
        except RerankError as error:
            self._error = error
        self._body_ended.set()

        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _start(self, line: Line, tasks: asyncio.TaskGroup) -> None:
        """Start the work on a line, once there is a place for it."""
        await self._places.acquire()
        task = tasks.create_task(self._answer(line))
        self._lines.add(task)
        self._unanswered.add(task)
        STREAM_LINES_IN_FLIGHT.inc()
        task.add_done_callback(self._end_line)

    def _end_line(self, task: asyncio.Task[None]) -> None:
        self._lines.discard(task)
        self._unanswered.discard(task)
        STREAM_LINES_IN_FLIGHT.dec()
        self._places.release()

    async def _answer(self, line: Line) -> None:
        """Answer a line; one that is given up with the stream has the stream's error."""
        clock = asyncio.get_running_loop().time
        began = clock()
        identity: LineId = line.number
        try:
            identity = await self._identity(line)
            answered = await self._make_answer(line, identity)
        except asyncio.CancelledError:
            if self._error is None:
                raise
            content = error_line(self._error, request_id.get(), identity, line.number)
            answered = AnsweredLine(content, self._error.code)

        self._unanswered.discard(asyncio.current_task())
        STREAM_LINES.labels(answered.outcome).inc()
        STREAM_LINE_SECONDS.observe(clock() - began)
        self._answered += 1
        self._failed += answered.outcome != "ok"
        await self._unsent.put(answered.content)

    async def _identity(self, line: Line) -> LineId:
        """The id of a line, or its number."""
        found = None if line.content is None else await id_of(line.content)
        return line.number if found is None else found

    async def _write(self, send: Send) -> None:
        """Send answers until the last one is taken."""
        while answers := await self._unsent.take():
            await send({"type": "http.response.body", "body": answers, "more_body": True})
            self._arrived_at = asyncio.get_running_loop().time()

    async def _watch(self, reader: asyncio.Task[None]) -> None:
        """End the stream early when the process is drained, or when nothing arrives; raises
        `ClientDisconnect` where the body is not read, so that the reader cannot notice."""
        while self._error is None:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._connection.is_lost():
                raise ClientDisconnect
            if draining(self._request.app):
                self._end(_shutting_down(self._splitter.ended), reader)
                await asyncio.sleep(self._bounds.drain_seconds)
                for task in list(self._unanswered):
                    task.cancel()
            elif self._is_idle():
                self._end(_nothing_arrived(self._bounds.idle_seconds), reader)

    def _is_idle(self) -> bool:
        if self._lines or self._body_ended.is_set():
            return False
        silent = asyncio.get_running_loop().time() - self._arrived_at
        return silent > self._bounds.idle_seconds

    def _end(self, error: RerankError, reader: asyncio.Task[None]) -> None:
        """Read no more of the body."""
        self._error = error
        if not self._body_ended.is_set():
            reader.cancel()
            self._body_ended.set()


def _shutting_down(lines: int) -> RerankError:
    return Overloaded(f"The service is shutting down: lines after line {lines} were not read.")


def _nothing_arrived(seconds: float) -> RerankError:
    return DeadlineExceeded(f"The stream was ended: nothing arrived for {seconds:.0f} s.")
