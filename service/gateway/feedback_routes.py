"""The routes of feedback.

Depends on the endpoint of feedback and on the OpenAPI document, not on authentication: the router
that they are added to has it. Invariant: a route has the form of its body in the document.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from service.feedback_api import (
    EXAMPLES,
    BatchAnswer,
    Feedback,
    FeedbackBatch,
    ForgottenFeedback,
    TakenFeedback,
)
from service.gateway.feedback.endpoint import ACCEPTED, FEEDBACK_PATH, FeedbackEndpoint
from service.gateway.openapi import json_body


def add_feedback(
    router: APIRouter, feedback: FeedbackEndpoint, errors: dict[int | str, dict[str, Any]]
) -> None:
    """Add the routes of feedback; `errors` are their answers that are not a success."""

    @router.post(
        FEEDBACK_PATH,
        tags=["feedback"],
        responses=errors,
        status_code=ACCEPTED,
        response_model=TakenFeedback | BatchAnswer,
        openapi_extra=json_body(Feedback, FeedbackBatch, examples=EXAMPLES),
        summary="Send feedback on answers",
    )
    async def take(request: Request) -> Response:
        """Clicks and grades on the results of an earlier answer, or of several as `batch`.

        The `index` of a result and the `X-Request-Id` of its answer say which document is meant.
        The same event counts once, however often it is sent. Of a batch, an entry that is refused
        has a `code`, and the others are taken.
        """
        return await feedback.take(request)

    @router.delete(
        FEEDBACK_PATH + "/{request_id}",
        tags=["feedback"],
        responses=errors,
        response_model=ForgottenFeedback,
        summary="Forget the feedback on an answer",
    )
    async def forget(request: Request, request_id: str) -> Response:
        """Forget what is kept of a request of the caller's, and take no more feedback on it."""
        return await feedback.forget(request, request_id)
