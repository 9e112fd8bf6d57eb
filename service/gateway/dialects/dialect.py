"""The seam of dialects: a vendor's request and answer shape as pure functions.

A dialect reads a request's JSON object into a `RerankQuery`, and writes the answer or the error in
the vendor's shape. The module depends on no HTTP and on no vendor. Invariant: a path, the names of
a body's fields, and headers decide which dialect a request is in, never the values of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.api import WriteError
from service.gateway.domain import RerankQuery, RerankResult
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
class Dialect:
    """A vendor's shape of requests, answers and errors.

    `fields` are the top-level fields whose values `read` uses; a long value of another field is not
    built. `documents` is the one that lists the documents.
    """

    name: str
    matches: Callable[[RequestMarks], bool]
    fields: frozenset[str]
    read: Read
    write: Write
    write_error: WriteError
    documents: str = "documents"


def any_request(marks: RequestMarks) -> bool:
    """Match every request: the last dialect of a path takes what no other one does."""
    return True
