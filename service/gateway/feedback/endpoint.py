"""The endpoints of feedback: `POST /v1/feedback`, and `DELETE /v1/feedback/{request_id}`.

The module depends on the checks of a body, on records and the journal, on no model and no worker.
Invariant: a caller reaches records of its own requests alone, and an answer does not tell whether
another's exist; feedback that was accepted is in the buffer, and what finds no room is refused; a
request that is forgotten is so on the disk.
"""

from __future__ import annotations

import time

import anyio.to_thread
from fastapi import Request, Response
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.responses import JSONResponse

from service.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    UnknownRequest,
)
from service.feedback_api import (
    BatchAnswer,
    Feedback,
    FeedbackBatch,
    ForgottenFeedback,
    RefusedFeedback,
    TakenFeedback,
)
from service.gateway.admission.authentication import Caller, caller_of
from service.gateway.admission.quotas import Quotas
from service.gateway.dialects.fields.messages import bad_request
from service.gateway.feedback.checking import check, shown_results
from service.gateway.feedback.lines import answer_line, events_line, forget_line
from service.gateway.feedback.record import AnswerRecord
from service.gateway.feedback.recorder import AnswerRecorder
from service.gateway.feedback.taken import MAX_LINES_AN_ANSWER, TakenAnswers
from service.observability.feedback_metrics import FEEDBACK_EVENTS
from service.observability.request_context import accept_request_id, add_log_fields, stage
from service.web.asgi import until_answered
from service.web.body_budget import BodyBudget
from service.web.request_body import announced_bytes, expect_json, read_body

FEEDBACK_PATH = "/v1/feedback"
MAX_BODY_BYTES = 2**18
_SHORT_BYTES = 4_096
"""Bodies that are read in less time than it takes to hand them to a thread."""
_MEMORY_RATIO = 24
"""Bytes of memory for each byte of the most expensive JSON."""
ACCEPTED = 202
"""The status of feedback that is kept in memory, and written soon."""


class FeedbackEndpoint:
    """Takes feedback of callers; without a `recorder`, none is taken.

    A request counts as one in flight of the caller's quota, and waits while the quota is in debt;
    it is charged no pairs, because none is scored.
    """

    def __init__(
        self, recorder: AnswerRecorder | None, quotas: Quotas, body_budget: BodyBudget
    ) -> None:
        self._recorder = recorder
        self._quotas = quotas
        self._body_budget = body_budget
        self._known = TakenAnswers()
        self._losses = 0

    async def take(self, request: Request) -> Response:
        """Take the feedback of the body: on one answer, or on several."""
        caller, recorder = self._expect_recorder(request)
        expect_json(request)
        announced = announced_bytes(request, MAX_BODY_BYTES)
        with self._quotas.ticket(caller.scope, caller.quota):
            held = until_answered(request).enter_context(
                self._body_budget.reserve(announced, caller.scope)
            )
            with stage("parse"):
                body = await read_body(request, MAX_BODY_BYTES, held)
                held.grow(_MEMORY_RATIO * len(body))
                if len(body) <= _SHORT_BYTES:
                    feedback = _read(body)
                else:
                    feedback = await anyio.to_thread.run_sync(_read, body)
            if isinstance(feedback, Feedback):
                return _accepted(await self._take(caller, recorder, feedback))

            entries = [await self._entry(caller, recorder, each) for each in feedback.batch]
            return _accepted(BatchAnswer(batch=entries))

    async def forget(self, request: Request, identity: str) -> Response:
        """Forget a request: no more feedback on it is taken, and what was taken does not count."""
        caller, recorder = self._expect_recorder(request)
        with self._quotas.ticket(caller.scope, caller.quota):
            if identity != accept_request_id(identity):
                raise UnknownRequest
            record = await recorder.find(caller, identity)
            # the clock of the gateway that answered may be ahead
            at = time.time() if record is None else max(time.time(), record.at)
            line = forget_line(recorder.tenant(caller), identity, at)
            if not await recorder.journal.write("forget", line):
                raise Overloaded("Feedback cannot be forgotten at the moment.")
            await recorder.forget(caller, identity)
        return Response(
            to_json(ForgottenFeedback(request_id=identity)), media_type=JSONResponse.media_type
        )

    def _expect_recorder(self, request: Request) -> tuple[Caller, AnswerRecorder]:
        caller = caller_of(request)
        add_log_fields(tenant=caller.name())
        if self._recorder is None:
            raise NotFound("Feedback is not taken here.")
        if not self._recorder.permissions.may_send(caller):
            raise Forbidden("This API key may not send feedback.")
        return caller, self._recorder

    async def _entry(
        self, caller: Caller, recorder: AnswerRecorder, feedback: Feedback
    ) -> TakenFeedback | RefusedFeedback:
        """The entry of the feedback on one answer of a batch."""
        try:
            return await self._take(caller, recorder, feedback)
        except (InvalidRequest, UnknownRequest) as error:
            return RefusedFeedback(
                request_id=feedback.request_id, code=error.code, message=error.sentence()
            )

    async def _take(
        self, caller: Caller, recorder: AnswerRecorder, feedback: Feedback
    ) -> TakenFeedback:
        events = len(feedback.events)
        if not recorder.is_sampled(feedback.request_id):
            FEEDBACK_EVENTS.labels("unsampled").inc(events)
            return TakenFeedback(
                request_id=feedback.request_id, accepted=0, repeated=0, sampled=False
            )
        try:
            record = await recorder.find(caller, feedback.request_id)
            if record is None:
                raise UnknownRequest
            check(feedback, record)
            accepted = self._keep(recorder, record, feedback)
        except (InvalidRequest, UnknownRequest) as error:
            FEEDBACK_EVENTS.labels(error.code).inc(events)
            raise

        FEEDBACK_EVENTS.labels("accepted").inc(accepted)
        FEEDBACK_EVENTS.labels("repeated").inc(events - accepted)
        return TakenFeedback(
            request_id=feedback.request_id, accepted=accepted, repeated=events - accepted
        )

    def _keep(self, recorder: AnswerRecorder, record: AnswerRecord, feedback: Feedback) -> int:
        """Have the events that are new written; returns their number."""
        if self._losses != recorder.journal.losses:
            # what was lost may be sent again, and later lines need that of their answer
            self._known, self._losses = TakenAnswers(), recorder.journal.losses
        taken = self._known.of(record.answer)
        shown = shown_results(feedback, record)
        changed, new = taken.changes(feedback.events)
        if not new and taken.knows(shown):
            return 0
        if taken.lines >= MAX_LINES_AN_ANSWER:
            raise InvalidRequest(
                f"This answer has had {MAX_LINES_AN_ANSWER} requests with feedback, which is the"
                " most."
            )

        if not taken.lines:
            _append(recorder, "answer", answer_line(record))
        _append(recorder, "events", events_line(record, time.time(), shown, new))
        self._known.keep(record.answer, taken, changed, shown)
        return len(new)


def _append(recorder: AnswerRecorder, kind: str, line: bytes) -> None:
    """Have a line written; raises `Overloaded` where there is no room for it."""
    if not recorder.journal.append(kind, line):
        raise Overloaded("Feedback cannot be kept at the moment.")


def _read(body: bytearray) -> Feedback | FeedbackBatch:
    """The feedback of a body; raises `InvalidRequest`."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise InvalidRequest("The request body is not valid JSON.") from None
    try:
        if isinstance(value, dict) and "batch" in value:
            return FeedbackBatch.model_validate(value)
        return Feedback.model_validate(value)
    except ValidationError as error:
        raise bad_request(error) from None


def _accepted(answer: TakenFeedback | BatchAnswer) -> Response:
    return Response(to_json(answer), ACCEPTED, media_type=JSONResponse.media_type)
