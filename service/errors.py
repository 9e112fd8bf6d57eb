"""The closed set of errors of a request: code, status, and whether the same request may succeed
later.

    RerankError
    |-- BadRequest             400  the body is wrong; trying again cannot help
    |   |-- InvalidRequest          invalid_request
    |   |-- EmptyItem               empty_item
    |   |-- InvalidImage            invalid_image
    |   |-- UnknownImage            unknown_image: a digest of no stored image
    |   |-- ImageTooLarge           image_too_large
    |   |-- ImageUrlDisabled        image_url_disabled
    |   |-- PairTooLong             pair_too_long
    |   `-- NoScore                 no_score: the model wrote no number
    |-- Unauthorized           401  unauthorized
    |-- Forbidden              403  forbidden
    |-- NotFound               404  not_found
    |-- ModelNotFound          404  model_not_found
    |-- UnknownRequest         404  unknown_request: no answer of that id takes feedback
    |-- MethodNotAllowed       405  method_not_allowed
    |-- BodyTooLarge           413  body_too_large
    |-- UnsupportedMediaType   415  unsupported_media_type
    |-- RateLimited            429  rate_limited
    |-- Internal               500  internal: a bug, never bad input
    |-- WorkerFailed           502  worker_failed
    |-- Overloaded             503  overloaded
    |-- NoWorker               503  no_worker
    `-- DeadlineExceeded       504  deadline_exceeded

Status codes are in this module and nowhere else. A message is written in this module or where its
error is raised; it is never a library's text and never has a path, an address, or a value of the
request in it. Exceptions of a library are translated once, where the library is called. The module
depends on no HTTP. Invariant: each code belongs to one class, and clients see no other code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

Loc = tuple[str | int, ...]
"""A location in the request body, such as `("documents", 7, "image")`."""

MAX_PROBLEMS = 20
"""Problems that the body of an error lists."""
MAX_UNKNOWN_IMAGES = 10_000
"""Unknown images that the body of an error lists, so that a client sends all of them at once."""
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SUBJECT = re.compile(
    r"(?:This|The image|An item) (?=(?:must|may|is|has|holds|needs|cannot|took|alone|and)\b)",
)
"""The subject of a message with a location. In its sentence, the path replaces the subject."""


def path_of(loc: Loc) -> str:
    """A location as JavaScript writes it, such as `documents[7].image`.

    Names that are no identifiers are quoted.
    """
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not _IDENTIFIER.fullmatch(step):
            path += f"[{json.dumps(step)}]"
        else:
            path += f".{step}" if path else step
    return path


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault in a request, and its location."""

    loc: Loc
    message: str

    def sentence(self) -> str:
        """The message with its location, such as `top_n must be at least 0.`"""
        if not self.loc:
            return self.message

        path = path_of(self.loc)
        subject = _SUBJECT.match(self.message)
        if subject:
            return f"{path} {self.message[subject.end() :]}"
        return f"{path}: {self.message[0].lower()}{self.message[1:]}"


class RerankError(Exception):
    """A failure that is answered with `{code, message, detail, request_id, errors?}`."""

    code: ClassVar[str]
    status: ClassVar[int]
    message: str
    retry: ClassVar[bool] = False
    """True if the answer has `Retry-After`: the same request may succeed later."""
    max_problems: ClassVar[int] = MAX_PROBLEMS

    def __init__(
        self,
        message: str | None = None,
        *,
        problems: Sequence[Problem] = (),
        unlisted: int = 0,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.problems = tuple(problems)
        self.unlisted = unlisted
        """The number of problems that are not in `problems`."""
        self.retry_after = retry_after
        """Seconds to wait; None sends a short random delay."""

    def sentence(self) -> str:
        """The message of the answer: the first problem with its location, and the number of the
        others."""
        if not self.problems:
            return self.message

        first = self.problems[0].sentence()
        more = len(self.problems) - 1 + self.unlisted
        return f"{first.removesuffix('.')} (and {more} more)." if more else first

    def listed(self) -> Sequence[Problem]:
        """The problems that the body lists."""
        return self.problems[: self.max_problems]

    def at(self, loc: Loc) -> Self:
        """The same error with a location in the request."""
        return type(self)(self.message, problems=[Problem(loc, self.message)])


class BadRequest(RerankError):
    """A request body that is not valid."""

    status = 400


class InvalidRequest(BadRequest):
    code, message = "invalid_request", "The request body is not valid."


class EmptyItem(BadRequest):
    code, message = "empty_item", "An item needs a text or an image."


class InvalidImage(BadRequest):
    code, message = "invalid_image", "The image cannot be read: send PNG, JPEG or WebP."


class UnknownImage(BadRequest):
    code, message = (
        "unknown_image",
        "The image is not stored here: send it with PUT /v1/images, then ask again.",
    )
    max_problems = MAX_UNKNOWN_IMAGES


class ImageTooLarge(BadRequest):
    code, message = "image_too_large", "The image is larger than this service accepts."


class ImageUrlDisabled(BadRequest):
    code, message = (
        "image_url_disabled",
        "Image URLs are not fetched here: send the image as a data URL or base64.",
    )


class PairTooLong(BadRequest):
    code, message = "pair_too_long", "Query and document together are longer than the model reads."


class NoScore(BadRequest):
    code, message = "no_score", "The model wrote no score for this document."


class Unauthorized(RerankError):
    code, status = "unauthorized", 401
    message = "This needs an API key: send the header Authorization: Bearer KEY."


class Forbidden(RerankError):
    code, status, message = "forbidden", 403, "This API key may not use this model."


class NotFound(RerankError):
    code, status, message = "not_found", 404, "There is nothing at this path."


class ModelNotFound(RerankError):
    code, status, message = "model_not_found", 404, "No such model is served here."


class UnknownRequest(RerankError):
    code, status, message = (
        "unknown_request",
        404,
        "No answer of yours with this request id takes feedback: the id is not one of an answer"
        " that ranked documents, or its time for feedback is over.",
    )


class MethodNotAllowed(RerankError):
    code, status, message = "method_not_allowed", 405, "This path does not take this method."


class BodyTooLarge(RerankError):
    code, status, message = (
        "body_too_large",
        413,
        "The request body is larger than this service accepts.",
    )


class UnsupportedMediaType(RerankError):
    code, status, message = (
        "unsupported_media_type",
        415,
        "Send the body with the header Content-Type: application/json.",
    )


class RateLimited(RerankError):
    code, status, message, retry = (
        "rate_limited",
        429,
        "This API key's quota is used up for now.",
        True,
    )


class Internal(RerankError):
    code, status, message = (
        "internal",
        500,
        "The service failed. The request id finds the cause in its log.",
    )


class WorkerFailed(RerankError):
    code, status, message = "worker_failed", 502, "A worker failed to score the request."


class Overloaded(RerankError):
    code, status, message, retry = "overloaded", 503, "The service is at its capacity.", True


class NoWorker(RerankError):
    code, status, message, retry = "no_worker", 503, "No worker is ready.", True


class DeadlineExceeded(RerankError):
    code, status, message = "deadline_exceeded", 504, "The request ran out of time."


def _leaves(kind: type[RerankError]) -> list[type[RerankError]]:
    """The classes under a class that have no subclasses."""
    leaves: list[type[RerankError]] = []
    for child in kind.__subclasses__():
        leaves += _leaves(child) or [child]
    return leaves


BY_CODE: dict[str, type[RerankError]] = {kind.code: kind for kind in _leaves(RerankError)}
"""The class of each error that a client may see, by its code."""
