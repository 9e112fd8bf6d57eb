"""What both apps do at HTTP: request id, log line, error answers, departed clients, health routes,
draining.

Knows Starlette, nothing of reranking. Invariant: every answer carries `X-Request-Id` and every
failure is the one flat error body; no exception's text leaves the process.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import ErrorBody, ErrorPlace
from service.errors import (
    Internal,
    MethodNotAllowed,
    NotFound,
    NoWorker,
    Overloaded,
    RerankError,
    Unauthorized,
)
from service.observability import tracing
from service.observability.logs import log
from service.observability.metrics import ERRORS, SHED
from service.observability.request_context import (
    RequestContext,
    accept_request_id,
    add_log_fields,
    request_id,
    server_timing,
    timed_request,
)
from service.observability.request_log import finish_request, route_of
from service.web.response_pieces import in_pieces
from service.wire import REQUEST_ID_HEADER

Result = TypeVar("Result")

_HELD = "rerank.held"
"""In a request's scope: what is given back when it has been answered."""
CLIENT_GONE = 499
"""The status that logs and metrics give a request whose client left; nobody receives it."""


BEYOND = "beyond_limit"
"""In a request's state where its connection is one too many: nothing but health is answered on it.
"""


def new_app(**options: Any) -> FastAPI:
    """A FastAPI app as both processes have it: no pages of its own, nor traces: those would tell
    what users wrote."""
    return FastAPI(
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        **options,
    )


def add_common_routes(
    app: FastAPI,
    *,
    is_ready: Callable[[], bool],
    is_alive: Callable[[], bool] = lambda: True,
    trusts_traces: bool = True,
    log_sample: float = 1.0,
) -> None:
    """Give an app its error answers, its health routes, and its outermost layer.

    `trusts_traces`: callers may say what is traced. `log_sample`: the share of requests that are
    logged.
    """
    app.state.draining, app.state.is_ready = False, is_ready
    app.state.trusts_traces, app.state.log_sample = trusts_traces, log_sample
    app.add_exception_handler(RerankError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(_RequestMiddleware)

    @app.head("/health/live", include_in_schema=False)
    @app.get("/health/live", tags=["health"])
    async def live() -> Response:
        """200 while the process makes progress."""
        return _health(is_alive(), "live")

    @app.head("/health/ready", include_in_schema=False)
    @app.get("/health/ready", tags=["health"])
    async def ready() -> Response:
        """200 when requests can be answered."""
        return _health(is_ready() and not draining(app), "ready")


def drain(app: FastAPI) -> bool:
    """From now on say that this app is not ready, and close each connection with its next answer;
    requests are still served.

    Gives whether it was ready, so that somebody may still send some.
    """
    app.state.draining = True
    return bool(app.state.is_ready())


def draining(app: FastAPI) -> bool:
    """Whether the process was told to end."""
    return bool(app.state.draining)


def record_error(error: RerankError) -> None:
    """Count a failed request by its error, and add the error's code to the request's log line."""
    ERRORS.labels(error.code).inc()
    add_log_fields(code=error.code)


def error_response(error: RerankError) -> Response:
    """The answer to an error: the flat error body, its status and headers.

    It records nothing, so that probes are answered with it too; `record_error` counts and logs.
    """
    sentence = error.sentence()
    body = ErrorBody(
        code=error.code,
        message=sentence,
        detail=sentence,
        request_id=request_id.get(),
        errors=[ErrorPlace(loc=list(each.loc), message=each.sentence()) for each in error.listed()]
        or None,
    )
    headers = {"retry-after": str(error.retry_after or random.randint(1, 3))} if error.retry else {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(
        body.model_dump(exclude_none=True), status_code=error.status, headers=headers
    )


def until_answered(request: Request) -> ExitStack:
    """What is entered here is left when the answer has been sent, or the request has ended
    otherwise."""
    stack: ExitStack = request.scope[_HELD]
    return stack


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """`work`'s result; if the client leaves before, `work` is cancelled and `ClientDisconnect`
    raised.

    The body must have been read.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watcher.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _RequestMiddleware:
    """Around every request: its id, its log line, its metrics, and the last word on exceptions."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _drop_trailing_slash(scope)
        offered = Request(scope).headers.get(REQUEST_ID_HEADER)
        traced = tracing.server_span(
            scope["path"], scope["headers"], trusted=scope["app"].state.trusts_traces
        )
        with timed_request(accept_request_id(offered)) as record, traced, ExitStack() as held:
            scope[_HELD] = held
            answer = _ResponseSender(scope, send, record)
            try:
                await self._have_answered(scope, receive, answer)
            except ClientDisconnect:
                pass
            finally:
                route = route_of(scope)
                tracing.set_response(scope["method"], route, answer.status, record.log_fields)
                finish_request(record, route, answer.status, scope["app"].state.log_sample)

    async def _have_answered(self, scope: Scope, receive: Receive, answer: _ResponseSender) -> None:
        """Have the app answer, and answer in its stead where it does not."""
        if answer.beyond and not scope["path"].startswith("/health/"):
            SHED.labels("connections").inc()
            await _failed(Overloaded())(scope, receive, answer.send)
            return

        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if answer.begun or not draining(scope["app"]):
                raise
            await _failed(Overloaded("The service is shutting down."))(scope, receive, answer.send)
        except ClientDisconnect:
            raise
        except Exception as failure:
            log("request failed", logging.ERROR, failure=failure, request_id=request_id.get())
            response = _failed(Internal())
            if answer.begun:
                raise  # part of the answer has been sent: the connection is closed
            await response(scope, receive, answer.send)


def _drop_trailing_slash(scope: Scope) -> None:
    """A path with one slash more is the same path: a client's base URL often ends in one."""
    path = scope["path"]
    if len(path) > 1 and path.endswith("/"):
        scope["path"] = path[:-1]
        scope["raw_path"] = scope.get("raw_path", b"").removesuffix(b"/")


class _ResponseSender:
    """An answer on its way out: what every one of them carries, and how far it has come."""

    def __init__(self, scope: Scope, send: Send, record: RequestContext) -> None:
        self._app: FastAPI = scope["app"]
        self._send = send
        self._record = record
        self.beyond = BEYOND in scope.get("state", {})
        self.status = CLIENT_GONE

    @property
    def begun(self) -> bool:
        return self.status != CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(common_headers(self._record))
            if self.beyond or draining(self._app):
                headers["connection"] = "close"
        for piece in in_pieces(message):
            await self._send(piece)


def common_headers(record: RequestContext) -> dict[str, str]:
    """The headers that every answer carries."""
    return {REQUEST_ID_HEADER: request_id.get(), "server-timing": server_timing(record)}


def _failed(error: RerankError) -> Response:
    """The answer to a request that failed; the failure is recorded."""
    record_error(error)
    return error_response(error)


async def _answer_error(request: Request, error: Exception) -> Response:
    return _failed(error if isinstance(error, RerankError) else Internal())


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """The framework's own refusals in our words."""
    status = getattr(error, "status_code", 500)
    kinds: dict[int, type[RerankError]] = {
        HTTPStatus.NOT_FOUND: NotFound,
        HTTPStatus.METHOD_NOT_ALLOWED: MethodNotAllowed,
    }
    response = _failed(kinds.get(status, Internal)())
    if allow := (getattr(error, "headers", None) or {}).get("Allow"):
        response.headers["allow"] = allow
    return response


def _health(well: bool, word: str) -> Response:
    return JSONResponse({"status": word}) if well else error_response(NoWorker(f"Not {word}."))
