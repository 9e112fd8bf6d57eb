"""A process's one server: uvicorn, as both apps run it.

Knows sockets, limits of headers, and exit codes; nothing of what is served. Invariant: a server that cannot serve ends the
process with a non-zero code.
"""

from __future__ import annotations

import ipaddress

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.asgi import error_response
from service.contracts import REQUEST_ID_HEADER
from service.errors import InvalidRequest
from service.telemetry import accept_request_id, request_id, timed_request

MAX_HEADER_BYTES = 64 * 1024
DRAIN_SECONDS = 30


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Http(H11Protocol):
    """h11, which unlike httptools bounds the header; what is no HTTP gets the one error body too."""

    def send_400_response(self, msg: str) -> None:
        with timed_request(accept_request_id(None)):
            answer = error_response(InvalidRequest("The request is not valid HTTP."))
            identity = (REQUEST_ID_HEADER.encode(), request_id.get().encode())
        headers = [*answer.raw_headers, identity, (b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server:
    """Serves an app until a signal comes or `give_up` is called."""

    def __init__(self, host: str, port: int) -> None:
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._host, self._port = host, port
        self._uvicorn: uvicorn.Server | None = None
        self._failed = False

    def run(self, app: FastAPI) -> int:
        """Serve; gives the process's exit code."""
        config = uvicorn.Config(
            app,
            host=self._host,
            port=self._port,
            http=_Http,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.run()
        return 1 if self._failed or not self._uvicorn.started else 0

    def give_up(self) -> None:
        """End: what is served will never be ready."""
        self._failed = True
        if self._uvicorn:
            self._uvicorn.should_exit = True
