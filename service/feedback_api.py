"""The public requests and answers of `/v1/feedback`, as pydantic models for the OpenAPI page.

The module has types and bounds and depends on no HTTP. Invariant: every field that a client may
send or receive there is here, and a field that nothing reads is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_EVENTS = 1_000
"""Events about one answer in one request."""
MAX_BATCH = 100
"""Answers of one request."""
MAX_GRADE = 100
"""As of a judged query (`gmr eval judgements`)."""
MAX_INDEX = 99_999
"""The last document of the largest request that a setting allows."""

Index = Annotated[int, Field(strict=True, ge=0, le=MAX_INDEX)]


def _as_one(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for a value that is neither form, instead of one for each."""
    try:
        return validate(value)
    except ValidationError:
        raise PydanticCustomError("shown", "A number of results, or a list of indices.") from None


Shown = Annotated[
    Annotated[int, Field(strict=True, ge=1, le=MAX_INDEX + 1)]
    | Annotated[list[Index], Field(min_length=1, max_length=MAX_EVENTS)],
    WrapValidator(_as_one),
]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeedbackEvent(_Closed):
    """A click of a user on one result, or a grade of it."""

    index: Index = Field(
        description="The `index` of a result: the document's place in its request."
    )
    clicked: Annotated[bool, Field(strict=True)] | None = Field(
        None, description="`true`: the user opened the document."
    )
    grade: Annotated[int, Field(strict=True, ge=0, le=MAX_GRADE)] | None = Field(
        None, description="How good the document is for the query; 0: it is not relevant."
    )

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        if (self.clicked is None) == (self.grade is None) or self.clicked is False:
            raise PydanticCustomError("event", "An event is a click or a grade.")
        return self


class Feedback(_Closed):
    """Feedback on one answer."""

    request_id: str = Field(
        min_length=1, max_length=128, description="The `X-Request-Id` of the answer."
    )
    events: list[FeedbackEvent] = Field([], max_length=MAX_EVENTS)
    shown: Shown | None = Field(
        None,
        description=(
            "How many of the results the user saw, from the best one on, or the `index` of each"
            " result that the user saw, in the order of the page."
        ),
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.events and self.shown is None:
            raise PydanticCustomError("feedback", "Feedback has events, or what was shown.")
        return self


class FeedbackBatch(_Closed):
    """Feedback on several answers."""

    batch: list[Feedback] = Field(min_length=1, max_length=MAX_BATCH)


class TakenFeedback(BaseModel):
    """The feedback on one answer that was taken."""

    request_id: str
    accepted: int = Field(description="Events that are kept.")
    repeated: int = Field(description="Events that were known, and count once.")
    sampled: bool = Field(
        True, description="`false`: the answer is not in the sample, and nothing is kept of it."
    )


class RefusedFeedback(BaseModel):
    """The error that the feedback on an answer of a batch has instead, at its place."""

    request_id: str
    code: str
    message: str


class BatchAnswer(BaseModel):
    """The answer to a batch: an entry for each answer that it is about, in their order."""

    batch: list[TakenFeedback | RefusedFeedback]


class ForgottenFeedback(BaseModel):
    """The answer to `DELETE /v1/feedback/{request_id}`, whatever was known of the request."""

    request_id: str
    forgotten: Literal[True] = True


EXAMPLES: dict[str, Any] = {
    "clicks": {
        "summary": "Five results were shown, and two of them opened",
        "value": {
            "request_id": "rr-5f2b8c1d9e3a4b6c7d8e9f00",
            "shown": 5,
            "events": [{"index": 3, "clicked": True}, {"index": 0, "clicked": True}],
        },
    },
    "grades": {
        "summary": "Two documents were graded",
        "value": {
            "request_id": "rr-5f2b8c1d9e3a4b6c7d8e9f00",
            "events": [{"index": 1, "grade": 3}, {"index": 2, "grade": 0}],
        },
    },
    "batch": {
        "summary": "Several answers at once",
        "value": {
            "batch": [
                {"request_id": "rr-5f2b8c1d9e3a4b6c7d8e9f00", "shown": [2, 0, 1]},
                {
                    "request_id": "rr-0a1b2c3d4e5f60718293a4b5",
                    "events": [{"index": 0, "clicked": True}],
                },
            ]
        },
    },
}
"""Requests for the OpenAPI page. The ids stand for those of answers."""
