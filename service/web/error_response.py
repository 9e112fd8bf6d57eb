"""The answers to errors: the flat error body, and the exception handlers that send it.

Depends on Starlette and on the service's errors. Invariant: an error's answer has only the error's
own sentence, never the text of an exception; and making an answer records nothing, so that probes
can be answered, too.
"""

from __future__ import annotations

import random
from http import HTTPStatus

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.error_body import WriteError, flat_body
from service.errors import Internal, MethodNotAllowed, NotFound, RerankError, Unauthorized
from service.observability.metrics import ERRORS
from service.observability.request_context import add_log_fields, request_id
from service.web.route_table import methods_at, suggested_route

_ERROR_WRITER = "rerank.error_writer"
"""The key in a request's scope of the function that writes its errors; by default `flat_body`."""


def add_error_handlers(app: FastAPI) -> None:
    """Answer the service's errors, and those of the framework, with the flat error body."""
    app.add_exception_handler(RerankError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)


def record_error(error: RerankError) -> None:
    """Count a failed request by its error, and add the error's code to the request's log line."""
    ERRORS.labels(error.code).inc()
    add_log_fields(code=error.code)


def error_response(error: RerankError, write: WriteError = flat_body) -> Response:
    """The answer to an error: its body, its status and headers.

    It records nothing, because it also answers probes; `record_error` counts and logs.
    """
    headers = {}
    if error.retry:
        headers["retry-after"] = str(error.retry_after or random.randint(1, 3))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"

    body = write(error, request_id.get())
    return JSONResponse(body, status_code=error.status, headers=headers)


def failure_response(error: RerankError, write: WriteError = flat_body) -> Response:
    """Record a failed request, and make its answer."""
    record_error(error)
    return error_response(error, write)


def set_error_writer(request: Request, write: WriteError) -> None:
    """Have errors of a request, from now on, answered with the bodies that `write` makes."""
    request.scope[_ERROR_WRITER] = write


async def _answer_error(request: Request, error: Exception) -> Response:
    write = request.scope.get(_ERROR_WRITER, flat_body)
    return failure_response(error if isinstance(error, RerankError) else Internal(), write)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answer an error of the framework, such as an unknown path, with the flat error body."""
    status = getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
    if status == HTTPStatus.NOT_FOUND:
        return failure_response(no_route(request.app, request.scope["path"]))
    if status != HTTPStatus.METHOD_NOT_ALLOWED:
        return failure_response(Internal())

    methods = methods_at(request.app, request.scope)
    named = [method for method in methods if method not in ("HEAD", "OPTIONS")]
    sentence = f"{MethodNotAllowed.message} It takes {' and '.join(named)}." if named else None
    response = failure_response(MethodNotAllowed(sentence))
    response.headers["allow"] = ", ".join(methods)
    return response


def no_route(app: FastAPI, path: str) -> NotFound:
    """The error of a path that has no route, with the route that was probably meant."""
    suggestion = suggested_route(app, path)
    return NotFound(f"{NotFound.message} Did you mean {suggestion}?" if suggestion else None)
