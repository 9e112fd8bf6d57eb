"""Calls to a service over HTTP, such as `GET /info` and `POST /rerank`, with retries within bounds.

Does not depend on what is ranked, or on where the service runs: the client that it is given may
call an app in this process. Invariant: a failure is one sentence for a terminal; it never has a
key or a library's text in it, and each wait has an upper bound.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

MAX_ANSWER_BYTES = 256 * 2**20
"""The largest answer that is read."""
_RETRIED = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
}
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 8.0
"""Waits before a retry where the service names none; each is twice as long as the one before."""
_JITTER = 0.2
"""The share by which a wait is lengthened at random, so that clients do not retry together."""


@dataclass(frozen=True, slots=True)
class RetryBounds:
    """Upper bounds of the retries of one call."""

    attempts: int = 12
    seconds: float = 120.0
    """Seconds of waiting, together."""


@dataclass(frozen=True, slots=True)
class Place:
    """A fault in a request: its location, such as `("documents", 7, "image")`, and a sentence."""

    loc: tuple[str | int, ...]
    message: str


class CannotCall(Exception):
    """A call that has no answer; the message is one sentence."""


class Refused(CannotCall):
    """A call that the service answered with an error."""

    def __init__(self, status: int, code: str, message: str, places: Sequence[Place] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        """The service's code of the error, such as `model_not_found`; "" from another server."""
        self.places = tuple(places)


class Service:
    """A service, called with retries.

    An answer of 429, 502 or 503 is asked for again, after the `Retry-After` that it names. A
    connection that breaks is opened again once the service has answered a call: before that,
    nothing listens at the URL.
    """

    def __init__(self, client: httpx.AsyncClient, bounds: RetryBounds | None = None) -> None:
        self._client = client
        self._bounds = bounds or RetryBounds()
        self._has_answered = False

    @property
    def url(self) -> str:
        """The service's URL, for messages."""
        return str(self._client.base_url).rstrip("/")

    async def info(self) -> dict[str, Any]:
        """The served model, and the limits of a request. Raises `CannotCall`."""
        return await self._call("GET", "info")

    async def model(self, name: str) -> dict[str, Any]:
        """The entry of a served model in OpenAI's list. Raises `CannotCall`."""
        return await self._call("GET", f"v1/models/{quote(name)}")

    async def rerank(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to `POST /rerank`. Raises `CannotCall`, `Refused` among it."""
        return await self.rerank_encoded(json.dumps(body).encode())

    async def rerank_encoded(self, body: bytes) -> dict[str, Any]:
        """The same for a body that is JSON already."""
        answer = await self._call("POST", "rerank", body)
        if not isinstance(answer.get("results"), list):
            raise self._no_reranker()
        return answer

    async def rerank_lines(self, lines: bytes) -> list[dict[str, Any]]:
        """The lines that answer requests of `POST /v1/rerank/stream`, in any order. Raises
        `CannotCall`."""
        content = await self._attempt("POST", "v1/rerank/stream", lines, "application/x-ndjson")
        return [self._object(line) for line in content.splitlines()]

    async def send_feedback(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to `POST /v1/feedback`. Raises `CannotCall`, `Refused` among it."""
        answer = await self._call("POST", "v1/feedback", json.dumps(body).encode())
        if not isinstance(answer.get("accepted"), int):
            raise self._no_reranker()
        return answer

    async def forget_feedback(self, request_id: str) -> None:
        """Have the service forget a request. Raises `CannotCall`, `Refused` among it."""
        await self._call("DELETE", f"v1/feedback/{quote(request_id, safe='')}")

    async def missing_images(self, references: Sequence[str]) -> list[str]:
        """Those of some pictures that the service does not have. Raises `CannotCall`."""
        body = json.dumps({"digests": references}).encode()
        missing = (await self._call("POST", "v1/images/missing", body)).get("missing")
        if not isinstance(missing, list):
            raise self._no_reranker()
        return [reference for reference in references if reference in missing]

    async def put_images(self, pictures: Sequence[bytes]) -> None:
        """Have pictures stored; one that is refused is refused where it is ranked, too. Raises
        `CannotCall`."""
        files = [("images", picture) for picture in pictures]
        form = httpx.Request("PUT", self._client.base_url, files=files)
        await self._attempt("PUT", "v1/images", form.read(), form.headers["content-type"])

    def may_wait(self, number: int) -> bool:
        """True while the waits before a retry, up to this one, are within the bounds."""
        together = sum(_shortest_pause(each) for each in range(1, number + 1)) * (1 + _JITTER)
        return number < self._bounds.attempts and together <= self._bounds.seconds

    async def wait(self, number: int) -> None:
        """Wait as before a retry of this number, for answers that are successful in part."""
        await asyncio.sleep(_pause(number))

    async def _call(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        return self._object(await self._attempt(method, path, body))

    async def _attempt(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """The body of a successful answer, after attempts within the bounds."""
        end = time.monotonic() + self._bounds.seconds
        for attempt in range(1, self._bounds.attempts + 1):
            try:
                response, content = await self._send(method, path, body, content_type)
            except httpx.TransportError as error:
                failure = self.unreachable(error)
                if not self._has_answered or isinstance(error, httpx.UnsupportedProtocol):
                    raise failure from None
                wait = None
            else:
                self._has_answered = True
                if response.is_success:
                    return content
                failure = self._refusal(response, content)
                if response.status_code not in _RETRIED:
                    raise failure
                wait = _retry_after(response)

            pause = _pause(attempt) if wait is None else wait * (1 + _JITTER * random.random())
            if attempt == self._bounds.attempts or time.monotonic() + pause > end:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> tuple[httpx.Response, bytes]:
        """The answer and its body; raises `httpx.TransportError`, or `CannotCall` where the body
        is too long."""
        headers = {} if body is None else {"content-type": content_type}
        content = bytearray()
        async with self._client.stream(method, path, content=body, headers=headers) as response:
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise self._no_reranker()
        return response, bytes(content)

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._no_reranker()
        return answer

    def _refusal(self, response: httpx.Response, content: bytes) -> Refused:
        """The error of an answer: the service's own sentence, or that of another server's
        status."""
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        status = response.status_code
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            phrase = f"{status} {response.reason_phrase}".rstrip()
            return Refused(status, "", f"{self.url} answered {phrase}: it is no such service.")

        message = body["message"]
        if status == HTTPStatus.UNAUTHORIZED:
            message += " Set RERANK_KEY, or give --key-file."
        return Refused(status, str(body.get("code", "")), message, _places(body.get("errors")))

    def unreachable(self, error: httpx.TransportError) -> CannotCall:
        """The failure of a connection, as a sentence."""
        url = self.url
        if isinstance(error, httpx.ReadTimeout):
            return CannotCall(f"{url} did not answer in time.")
        tls_failure = _tls_failure(error)
        if isinstance(tls_failure, ssl.SSLCertVerificationError):
            return CannotCall(
                f"The certificate of {url} is not trusted: name the file of its authority's"
                " certificate in SSL_CERT_FILE."
            )
        if tls_failure is not None:
            return CannotCall(f"No TLS connection to {url}: does the URL begin with http://?")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return CannotCall(f"Nothing answers at {url}.")
        return CannotCall(f"The connection to {url} broke off.")

    def _no_reranker(self) -> CannotCall:
        return CannotCall(f"{self.url} does not answer as this service does: check the URL.")


def _places(listed: object) -> list[Place]:
    """The `errors` of an error's body; what has another shape is left out."""
    places: list[Place] = []
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("loc"), list):
            places.append(Place(tuple(each["loc"]), str(each.get("message", ""))))
    return places


def _pause(attempt: int) -> float:
    """Seconds before the next attempt, where the service does not name them."""
    return _shortest_pause(attempt) * (1 + _JITTER * random.random())


def _shortest_pause(attempt: int) -> float:
    """The same without its jitter."""
    doubled: float = _FIRST_WAIT_SECONDS * 2 ** min(attempt - 1, 8)  # it stops doubling before
    return min(doubled, _LONGEST_WAIT_SECONDS)


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that `Retry-After` names, as a number or a date; None without a valid one."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def _tls_failure(error: BaseException) -> ssl.SSLError | None:
    """The failure of TLS among the causes of an error, if there is one."""
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None or isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
