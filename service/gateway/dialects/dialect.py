"""The seam of dialects: a vendor's request and answer shape as pure functions.

A dialect reads a request's JSON object into a `RerankQuery`, and writes the answer or the error in
the vendor's shape. The module depends on no HTTP and on no vendor. Invariant: a path, the names of
a body's fields, and headers decide which dialect a request is in, never the values of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel

from service.error_body import WriteError, flat_body
from service.errors import RerankError
from service.gateway.dialects.fields.locations import Relocate, relocated, unmoved
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.parsing.json_body import Path
from service.limits import Limits

OnError = Literal["fail", "skip"]


@dataclass(frozen=True, slots=True)
class RequestMarks:
    """The marks of a request by which its dialect is told: the names of the fields in its body's
    JSON object, and its headers by lower-case name."""

    fields: Collection[str]
    headers: Mapping[str, str]


Read = Callable[[dict[str, Any], Limits, OnError], RerankQuery]
"""Makes a query of a body's JSON object; raises a `BadRequest` with the locations of what is wrong.
`OnError` applies to a request that does not set it."""
Write = Callable[[RerankQuery, RerankResult, str], Any]
"""Makes the answer's JSON value, or a pydantic model, of a query, its result and the request's
id."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request of a dialect for the documentation: one line about it, its body, and the headers
    that mark it."""

    summary: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A vendor's shape of requests, answers and errors.

    `name` is for logs and metrics, `title` is the vendor's own name for readers.
    `fields` are the fields whose values `read` uses; a long value of another field is not built.
    `documents` is the one that lists the documents; None if no single one does. The types `request`
    and `answer` are those of the OpenAPI document. Errors and their locations have the service's
    own names, and `relocate` gives the vendor's.
    """

    name: str
    title: str
    matches: Callable[[RequestMarks], bool]
    fields: frozenset[Path]
    read: Read
    write: Write
    request: type[BaseModel]
    answer: Any
    examples: tuple[Example, ...]
    write_error: WriteError = flat_body
    relocate: Relocate = unmoved
    documents: Path | None = "documents"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of every answer that is a success."""

    def respond(self, query: RerankQuery, result: RerankResult, request_id: str) -> Any:
        """The answer's JSON value, or a pydantic model, with the vendor's locations in errors."""
        errors = [(index, relocated(error, self.relocate)) for index, error in result.errors]
        return self.write(query, replace(result, errors=errors), request_id)

    def error_body(self, error: RerankError, request_id: str) -> Any:
        """The JSON body of an error's answer, with the vendor's locations."""
        return self.write_error(relocated(error, self.relocate), request_id)


def any_request(marks: RequestMarks) -> bool:
    """Match every request: the last dialect of a path takes what no other one does."""
    return True
