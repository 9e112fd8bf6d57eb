"""The HTTP behaviour that both apps share: request ids, log lines, health routes, clients that
disconnect, and draining.

Depends on Starlette, not on reranking. Invariant: every answer carries `X-Request-Id`; every
failure is answered with the flat error body; no exception's text leaves the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Internal, NoWorker, Overloaded
from service.observability import tracing
from service.observability.logs import log
from service.observability.metrics import SHED
from service.observability.request_context import (
    RequestContext,
    accept_request_id,
    request_id,
    server_timing,
    timed_request,
)
from service.observability.request_log import finish_request, route_of
from service.web.cors import CrossOrigin
from service.web.error_response import (
    add_error_handlers,
    error_response,
    failure_response,
    no_route,
)
from service.web.request_target import normalized
from service.web.response_pieces import in_pieces
from service.web.route_table import EVERY_METHOD, methods_at
from service.wire import REQUEST_ID_HEADER

Result = TypeVar("Result")

_CLEANUPS = "rerank.cleanups"
"""The key in a request's scope of the contexts that are closed when it has been answered."""
CLIENT_DISCONNECTED = 499
"""The status in logs and metrics of a request whose client disconnected; it is never sent."""
OVER_CONNECTION_LIMIT = "over_connection_limit"
"""The key in a request's state if its connection exceeds the limit; only health routes are then
answered."""


def new_app(**options: Any) -> FastAPI:
    """A FastAPI app without FastAPI's documentation pages and telemetry, which records what users
    sent."""
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
    readiness: Callable[[], str] = lambda: "",
    trusts_traces: bool = True,
    log_sample: float = 1.0,
    cross_origin: CrossOrigin | None = None,
    root_path: str = "",
) -> None:
    """Add the error handlers, the health routes, and the outermost middleware to an app.

    `readiness` returns a sentence about an app that is ready, or nothing. With `trusts_traces`, a
    caller's `traceparent` decides whether a request is traced. `log_sample` is the share of
    requests to log. `cross_origin` names the origins whose pages may call the app; by default none
    may. `root_path` is a prefix under which a proxy sends requests.
    """
    app.state.draining, app.state.is_ready, app.state.readiness = False, is_ready, readiness
    app.state.trusts_traces, app.state.log_sample = trusts_traces, log_sample
    app.state.cross_origin = cross_origin or CrossOrigin()
    app.state.root_path = root_path
    add_error_handlers(app)
    app.add_middleware(_RequestMiddleware)

    @app.get("/health/live", tags=["health"])
    async def live() -> Response:
        """200 while the process makes progress."""
        return JSONResponse({"status": "live"}) if is_alive() else error_response(_not("live"))

    @app.get("/health/ready", tags=["health"])
    async def ready() -> Response:
        """200 when requests can be answered."""
        return ready_response(app)


def ready_response(app: FastAPI) -> Response:
    """200 while requests are accepted, with a sentence where there is something to say of it."""
    if not app.state.is_ready() or draining(app):
        return error_response(_not("ready"))
    sentence = app.state.readiness()
    return JSONResponse({"status": "ready"} | ({"detail": sentence} if sentence else {}))


def drain(app: FastAPI) -> bool:
    """Report from now on that the app is not ready, and close each connection with its next answer.

    Requests are still served. Returns whether the app was ready, that is, whether more requests are
    expected.
    """
    app.state.draining = True
    return bool(app.state.is_ready())


def draining(app: FastAPI) -> bool:
    """True if the app is being drained."""
    return bool(app.state.draining)


def until_answered(request: Request) -> ExitStack:
    """The request's stack of contexts, closed when the answer has been sent or the request has
    ended without one."""
    stack: ExitStack = request.scope[_CLEANUPS]
    return stack


async def until_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` and return its result; cancel it if the client disconnects first.

    The request's body must have been read. Raises `ClientDisconnect`.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_wait_for_disconnect(request.receive))
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


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _RequestMiddleware:
    """The outermost middleware: request id, log line, metrics and span of every request, the
    answers to `HEAD` and `OPTIONS`, and to exceptions that no handler caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        settings = scope["app"].state
        scope = normalized(scope, settings.root_path)
        identity = accept_request_id(Request(scope).headers.get(REQUEST_ID_HEADER))
        span = tracing.server_span(scope["path"], scope["headers"], trusted=settings.trusts_traces)
        with timed_request(identity) as context, span, ExitStack() as cleanups:
            scope[_CLEANUPS] = cleanups
            response = _ResponseSender(scope, send, context)
            try:
                await self._respond(scope, receive, response)
            except ClientDisconnect:
                pass
            finally:
                route = route_of(scope)
                tracing.set_response(response.method, route, response.status, context.log_fields)
                finish_request(context, route, response.status, settings.log_sample)

    async def _respond(self, scope: Scope, receive: Receive, response: _ResponseSender) -> None:
        """Let the app respond, and answer in its place to `OPTIONS` and if it raises."""
        if scope["method"] == "OPTIONS":
            await _options_response(scope)(scope, receive, response.send)
            return
        if response.over_limit and not scope["path"].startswith("/health/"):
            SHED.labels("connections").inc()
            await failure_response(Overloaded())(scope, receive, response.send)
            return
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the answer is that of GET, without its body

        try:
            await self._app(scope, receive, response.send)
        except asyncio.CancelledError:
            if response.started or not draining(scope["app"]):
                raise
            error = Overloaded("The service is shutting down.")
            await failure_response(error)(scope, receive, response.send)
        except ClientDisconnect:
            raise
        except Exception as failure:
            log("request failed", logging.ERROR, failure=failure, request_id=request_id.get())
            answer = failure_response(Internal())
            if response.started:
                raise  # part of the answer has been sent: the server closes the connection
            await answer(scope, receive, response.send)


def _options_response(scope: Scope) -> Response:
    """The answer to `OPTIONS`, with the methods of the path: it requires no key, because browsers
    send none with a preflight request."""
    app, path = scope["app"], scope["path"]
    if path == "*":  # a question about the server as a whole (RFC 9110, 9.3.7)
        return Response(status_code=204)

    methods = methods_at(app, scope)
    # without a preflight that succeeds, a page could not read why its request fails
    preflight = app.state.cross_origin.preflight_headers(
        Headers(scope=scope), methods or EVERY_METHOD
    )
    if not methods and not preflight:
        return failure_response(no_route(app, path))
    allow = {"allow": ", ".join(methods)} if methods else {}
    return Response(status_code=204, headers=allow | preflight)


class _ResponseSender:
    """Sends the messages of an answer with the common headers, and keeps its status."""

    def __init__(self, scope: Scope, send: Send, context: RequestContext) -> None:
        self._app: FastAPI = scope["app"]
        self._send = send
        self._context = context
        self._request_headers = Headers(scope=scope)
        self.method: str = scope["method"]
        """The method that the client used."""
        self.over_limit = OVER_CONNECTION_LIMIT in scope.get("state", {})
        self.status = CLIENT_DISCONNECTED

    @property
    def started(self) -> bool:
        return self.status != CLIENT_DISCONNECTED

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(common_headers(self._context))
            self._app.state.cross_origin.add_headers(self._request_headers, headers)
            if self.over_limit or draining(self._app):
                headers["connection"] = "close"
        elif self.method == "HEAD":
            message = {**message, "body": b""}

        for piece in in_pieces(message):
            await self._send(piece)


def common_headers(context: RequestContext) -> dict[str, str]:
    """The headers of every answer."""
    return {REQUEST_ID_HEADER: request_id.get(), "server-timing": server_timing(context)}


def _not(state: str) -> NoWorker:
    return NoWorker(f"Not {state}.")
