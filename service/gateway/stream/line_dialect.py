"""One line of a stream: its id, and its answer or error as a line.

The request and the answer are those of the service's own dialect, with `id` and `line` beside them.
Depends on no HTTP. Invariant: an answer's `id` is that of its line, or the line's number where the
line has none that is valid; so every line is answered with an id, however bad it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio.to_thread
import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from service.error_body import flat_body
from service.errors import InvalidRequest, RerankError
from service.fields import MAX_ID_CHARS, Identifier
from service.gateway.dialects.dialect import OnError
from service.gateway.dialects.native import NATIVE
from service.gateway.domain import RerankQuery, RerankResult
from service.gateway.parsing.bodies import SMALL_BYTES
from service.limits import Limits
from service.wire import UNREADABLE

LineId = str | int


class _Identified(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Identified).decode
_identifier: TypeAdapter[LineId | None] = TypeAdapter(Identifier | None)


async def id_of(line: bytes | bytearray) -> LineId | None:
    """The id of a line; None where it has none that is valid."""
    if len(line) <= SMALL_BYTES:
        return _find_id(line)
    return await anyio.to_thread.run_sync(_find_id, line)


def answer_line(
    query: RerankQuery, result: RerankResult, request_id: str, identity: LineId, number: int
) -> bytes:
    """The line that answers a query."""
    answer = NATIVE.write(query, result, request_id).model_dump(exclude_none=True)
    return to_json({**answer, "id": identity, "line": number}) + b"\n"


def error_line(
    error: RerankError, request_id: str, identity: LineId | None, number: int | None
) -> bytes:
    """The line that reports an error; without an id it is about the stream itself."""
    body = {"id": identity, "line": number} | flat_body(error, request_id)
    return to_json(body) + b"\n"


def _find_id(line: bytes | bytearray) -> LineId | None:
    try:
        return _identifier.validate_python(from_json(bytes(_decode(line).id)))
    except (*UNREADABLE, ValidationError, ValueError):
        return None


def _read(body: dict[str, Any], limits: Limits, on_error: OnError) -> RerankQuery:
    """The query of a line's JSON object."""
    try:
        _identifier.validate_python(body.pop("id", None))
    except ValidationError:
        message = f"This must be a string of at most {MAX_ID_CHARS} characters, or an integer."
        raise InvalidRequest(message).at(("id",)) from None
    return NATIVE.read(body, limits, on_error)


LINE_DIALECT = replace(NATIVE, fields=NATIVE.fields | {"id"}, read=_read)
"""The service's own dialect, with an `id` for the request."""
