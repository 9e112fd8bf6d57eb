"""The scores of a part's rows, by a service's stream of requests.

Depends on a service that is called, not on files. Rows are sent in batches, several at once, and
what fails for a time is sent again. Invariants: each row of a part has its scores or its error; all
scores are of the model digest that the run began with; a failure that is not a row's own ends the
run, which can be continued.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.cli.bulk.requests import BadRow, RowContext, Scores, candidates_of, request_lines
from service.cli.client.calls import CannotCall, Service
from service.cli.client.stored_pictures import (
    MAX_PUTS,
    PUT_FROM_BYTES,
    UNKNOWN,
    encoded_size,
    inlined,
    put_missing,
)

BATCH_LINES = 32
BATCH_BYTES = 8 * 2**20
ATTEMPTS = 6
_TEMPORARY = ("overloaded", "no_worker", "rate_limited", "deadline_exceeded", "no_answer")
"""Errors that may pass: after `ATTEMPTS` they end the run."""
_AMBIGUOUS = ("worker_failed", "internal")
"""Errors that a row may cause: after `ATTEMPTS` they are the row's."""
_FATAL = ("model_not_found", "forbidden", "unauthorized")
"""Errors that every row would have: they end the run at once."""
_PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class _Request:
    """A request of a row: its candidates from `offset` on, and the pictures that it refers to."""

    row: Scores
    offset: int
    line: bytes
    pictures: dict[str, bytes]

    def inline(self) -> None:
        """Have the pictures in the request itself."""
        self.line, self.pictures = inlined(self.line, self.pictures), {}


class Scorer:
    """Scores rows by a service, in up to `concurrency` batches at once; `digest` is the model's."""

    def __init__(
        self, service: Service, context: RowContext, *, digest: str, concurrency: int
    ) -> None:
        self._service = service
        self._context = context
        self._digest = digest
        self._concurrency = concurrency

    async def score(self, rows: Iterable[Mapping[str, Any] | None]) -> list[Scores]:
        """The scores of rows, in their order; raises `CannotCall`."""
        scores: list[Scores] = []
        batches = _batches(self._requests(rows, scores))

        async def work() -> None:
            for batch in batches:
                await self._answer(batch)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._concurrency):
                    workers.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return scores

    def _requests(
        self, rows: Iterable[Mapping[str, Any] | None], scores: list[Scores]
    ) -> Iterator[_Request]:
        """The requests of rows; each row is added to `scores` before its requests."""
        for row in rows:
            found = Scores()
            scores.append(found)
            try:
                documents = candidates_of(row, self._context.shape)
                found.expect(len(documents))
                lines = request_lines(row or {}, documents, found, self._context)
                for offset, line, pictures in lines:
                    yield _Request(found, offset, line, pictures)
            except BadRow as error:
                found.fail(error.code, str(error))

    async def _answer(self, batch: list[_Request]) -> None:
        """Send requests until each has an answer, or an error of its row."""
        for attempt in range(1, ATTEMPTS + 1):
            await self._put_pictures(batch, attempt)
            lines = b"\n".join(request.line for request in batch)
            answers = await self._service.rerank_lines(lines)
            # not by an id: a line that is no JSON for the service has none
            by_line = {answer.get("line"): answer for answer in answers}

            left: list[_Request] = []
            for number, request in enumerate(batch, 1):
                answer = by_line.get(number, _NO_ANSWER)
                if not self._take(request, answer, is_last=attempt == ATTEMPTS):
                    left.append(request)
            if not left:
                return
            batch = left
            await asyncio.sleep(_PAUSE_SECONDS * attempt * random.uniform(0.5, 1.5))

    async def _put_pictures(self, batch: list[_Request], attempt: int) -> None:
        """Put the pictures that requests refer to, or have them in the requests: where they are
        few, where the service stores none, and where it has lost them twice."""
        pictures: dict[str, bytes] = {}
        for request in batch:
            pictures |= request.pictures
        at_once = self._context.put_images
        are_put = (
            at_once > 0
            and attempt <= MAX_PUTS
            and sum(map(len, pictures.values())) >= PUT_FROM_BYTES
            and await put_missing(self._service, pictures, at_once=at_once)
        )
        if not are_put:
            for request in batch:
                request.inline()

    def _take(self, request: _Request, answer: Mapping[str, Any], *, is_last: bool) -> bool:
        """Take the answer to a request; returns False where it is to be sent again."""
        code, message = answer.get("code"), answer.get("message", "")
        if code == UNKNOWN and request.pictures:
            return False
        if code is None:
            self._expect_digest(answer)
            if request.pictures and any(error["code"] == UNKNOWN for error in answer["errors"]):
                return False
            request.row.add(answer, request.offset, self._context.shape.documents)
            return True
        if code in _FATAL or (is_last and code in _TEMPORARY):
            raise CannotCall(message)
        if code in _TEMPORARY or (code in _AMBIGUOUS and not is_last):
            return False

        request.row.fail(code, message)
        return True

    def _expect_digest(self, answer: Mapping[str, Any]) -> None:
        digest = answer["meta"]["model_digest"]
        if digest != self._digest:
            raise CannotCall(
                f"The service's model has changed from {self._digest[:19]} to {digest[:19]}: scores"
                " of both cannot be in one file."
            )


_NO_ANSWER = {"code": "no_answer", "message": "The service left lines without an answer."}


def _batches(requests: Iterator[_Request]) -> Iterator[list[_Request]]:
    """Requests in batches of bounded size."""
    batch: list[_Request] = []
    size = 0
    for request in requests:
        own_size = len(request.line) + encoded_size(request.pictures)
        if batch and (len(batch) == BATCH_LINES or size + own_size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += own_size
    if batch:
        yield batch
