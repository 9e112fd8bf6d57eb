"""The client of one worker: a call over HTTP, its time limit, and the validation of its reply.

Depends on the protocol between gateway and worker, not on other workers. Invariant: a reply is
returned only if it is no larger than its call allows, has one entry for each document, and all its
numbers are valid.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

import httpx
import msgspec

from service.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NoWorker,
    Overloaded,
    RerankError,
    WorkerFailed,
)
from service.observability.request_context import add_worker_seconds, request_id
from service.observability.tracing import Attributes, propagation_headers, span
from service.wire import (
    MSGPACK,
    REQUEST_ID_HEADER,
    TIMEOUT_HEADER,
    UNREADABLE,
    ScoreCall,
    Scored,
    ScoreReply,
    WorkerInfo,
)

REPLY_MARGIN = 0.05
"""Share of the remaining time that is kept from a worker, so that its partial reply arrives in
time."""
MAX_MARGIN_SECONDS = 0.25
MAX_MODELS = 1_024
"""Models that one worker may serve."""
MAX_INFO_BYTES = 4 * 2**20
REPLY_BYTES = 16 * 2**10
"""Bytes of a reply beside its pairs: an error, a digest, timings."""
PAIR_BYTES = 128
"""Bytes of a reply for each pair: a score has 28 at most, a refusal those of its code."""
MAX_DIGEST = 128

_Served = Annotated[list[WorkerInfo], msgspec.Meta(min_length=1, max_length=MAX_MODELS)]

_encode = msgspec.msgpack.Encoder().encode
_reply_decoder = msgspec.msgpack.Decoder(ScoreReply)
_served_decoder = msgspec.json.Decoder(_Served)
_UNCOMPRESSED = {"accept-encoding": "identity"}
"""Replies are not decompressed: a few bytes could become many."""
_ERRORS_OF_A_WORKER = (Overloaded, NoWorker, DeadlineExceeded, ModelNotFound)
"""The errors of a worker that are raised as they are."""


async def post_score(client: httpx.AsyncClient, call: ScoreCall, deadline: float) -> ScoreReply:
    """A worker's reply to a call. The worker is given the time until `deadline` (event loop time),
    less a margin; the caller ends the wait.

    Raises the worker's error; `InvalidRequest` where the worker refuses the call;
    `DeadlineExceeded` where no time is left; `WorkerFailed` where the reply is invalid; and
    `httpx.HTTPError` where the worker cannot be reached.
    """
    time_left = deadline - asyncio.get_running_loop().time()
    timeout = time_left - min(time_left * REPLY_MARGIN, MAX_MARGIN_SECONDS)
    if timeout <= 0:
        raise DeadlineExceeded

    headers = {
        "content-type": MSGPACK,
        TIMEOUT_HEADER: str(math.ceil(timeout * 1000)),
        REQUEST_ID_HEADER: request_id.get(),
    }
    with span("POST /score", "client", _attributes(client, call)):
        headers |= _UNCOMPRESSED | propagation_headers()
        async with client.stream(
            "POST", "/score", content=_encode(call), headers=headers
        ) as response:
            body = await _read(response, REPLY_BYTES + PAIR_BYTES * len(call.documents))
        if response.status_code != httpx.codes.OK:
            raise _error(response, body)
        reply = _decode(body, len(call.documents))

    for part in ("queue", "engine"):
        add_worker_seconds(part, reply.timings.get(part, 0.0))
    return reply


async def get_served(client: httpx.AsyncClient) -> tuple[WorkerInfo, ...]:
    """The models that a worker serves, its default first; empty where it is not ready or its answer
    is invalid.

    Raises `httpx.HTTPError` where the worker cannot be reached.
    """
    async with client.stream("GET", "/info", headers=_UNCOMPRESSED) as response:
        if response.status_code != httpx.codes.OK:
            return ()
        try:
            return tuple(_served_decoder.decode(await _read(response, MAX_INFO_BYTES)))
        except (WorkerFailed, *UNREADABLE):
            return ()


def _attributes(client: httpx.AsyncClient, call: ScoreCall) -> Attributes:
    """The attributes of a call's span, by OpenTelemetry's semantic conventions."""
    url = client.base_url
    return {
        "http.request.method": "POST",
        "server.address": url.host,
        "server.port": url.port or (443 if url.scheme == "https" else 80),
        "gen_ai.operation.name": "rerank",
        "gen_ai.request.model": call.model,
        "gen_ai.rerank.candidate.count": len(call.documents),
    }


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """The body of a response as it was sent; raises `WorkerFailed` as soon as it is too long."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise WorkerFailed
    return bytes(body)


def _decode(body: bytes, documents: int) -> ScoreReply:
    """The reply of a body; raises `WorkerFailed` where it is incomplete or invalid."""
    try:
        reply = _reply_decoder.decode(body)
    except UNREADABLE:
        raise WorkerFailed from None

    if len(reply.pairs) != documents or len(reply.digest) > MAX_DIGEST:
        raise WorkerFailed
    for pair in reply.pairs:
        if isinstance(pair, Scored) and not _is_valid(pair):
            raise WorkerFailed
    if not all(0 <= seconds < math.inf for seconds in reply.timings.values()):
        raise WorkerFailed
    return reply


def _is_valid(pair: Scored) -> bool:
    """True if the token counts agree. The logit's bounds, which no NaN is within, are those of its
    type."""
    return max(pair.image_tokens, pair.reused_tokens) <= pair.prompt_tokens


def _error(response: httpx.Response, body: bytes) -> RerankError:
    """The error that a worker answered with, if it concerns the client; else `InvalidRequest` or
    `WorkerFailed`, by its status."""
    try:
        code = msgspec.json.decode(body, type=dict[str, object]).get("code")
    except UNREADABLE:
        code = None

    for kind in _ERRORS_OF_A_WORKER:
        if code == kind.code:
            return kind()
    return InvalidRequest() if response.is_client_error else WorkerFailed()
