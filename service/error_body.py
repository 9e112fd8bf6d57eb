"""The body of every answer that is not a success, as a pydantic model; it is on the OpenAPI page.

The module depends on errors and on no HTTP. Invariant: `detail` is a string, because clients print
it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from service.errors import RerankError


class ErrorPlace(BaseModel):
    """A fault of the request, and its location."""

    loc: list[str | int]
    message: str


class ErrorBody(BaseModel):
    """The body of every answer that is not a success. `detail` repeats `message`, because some
    clients read that field."""

    code: str
    message: str
    detail: str
    request_id: str
    errors: list[ErrorPlace] | None = None


WriteError = Callable[[RerankError, str], Any]
"""Makes the JSON body of an error's answer of the error and the request's id. The status is the
error's own."""


def flat_body(error: RerankError, request_id: str) -> dict[str, Any]:
    """The service's own body of an error's answer, as JSON's types."""
    sentence = error.sentence()
    places = [
        ErrorPlace(loc=list(problem.loc), message=problem.sentence()) for problem in error.listed()
    ]
    body = ErrorBody(
        code=error.code,
        message=sentence,
        detail=sentence,
        request_id=request_id,
        errors=places or None,
    )
    return body.model_dump(exclude_none=True)
