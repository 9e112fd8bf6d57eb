"""One call to one worker over HTTP: what is sent, how long it may take, and whether the reply can
be used.

Knows the worker's protocol, nothing of other workers. Invariant: a reply is handed on only if it is
no larger than the call allows, has one entry a document, and every number in it makes sense.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

import httpx
import msgspec

from service.errors import (
    BY_CODE,
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
"""Share of the remaining time that a worker is not given, so that its partial reply still arrives
in time."""
MAX_MARGIN_SECONDS = 0.25
MAX_MODELS = 1_024
"""Models that one worker may say it serves."""
MAX_INFO_BYTES = 4 * 2**20
REPLY_BYTES = 16 * 2**10
"""What a reply may take beside its pairs: an error, a digest, timings."""
PAIR_BYTES = 128
"""What a reply may take for each pair: a score has 28 bytes at most, a refusal its code."""
MAX_DIGEST = 128

_Served = Annotated[list[WorkerInfo], msgspec.Meta(min_length=1, max_length=MAX_MODELS)]

_encode = msgspec.msgpack.Encoder().encode
_reply_decoder = msgspec.msgpack.Decoder(ScoreReply)
_served_decoder = msgspec.json.Decoder(_Served)
_PLAIN = {"accept-encoding": "identity"}
"""Nothing that a worker says is unpacked: a few bytes could become many."""


async def post_score(client: httpx.AsyncClient, call: ScoreCall, until: float) -> ScoreReply:
    """A worker's reply to a call that is to be answered by `until` (event loop time), which the
    caller sees to.

    Raises what the worker said, `InvalidRequest` where it refused the call itself,
    `DeadlineExceeded` where there is no time to ask, `WorkerFailed` where the reply is of no use,
    and `httpx.HTTPError` where the worker cannot be reached.
    """
    left = until - asyncio.get_running_loop().time()
    allowed = left - min(left * REPLY_MARGIN, MAX_MARGIN_SECONDS)
    if allowed <= 0:
        raise DeadlineExceeded
    headers = {
        "content-type": MSGPACK,
        TIMEOUT_HEADER: str(math.ceil(allowed * 1000)),
        REQUEST_ID_HEADER: request_id.get(),
    }
    with span("POST /score", "client", _described(client, call)):
        headers |= _PLAIN | propagation_headers()
        async with client.stream(
            "POST", "/score", content=_encode(call), headers=headers
        ) as response:
            body = await _body(response, REPLY_BYTES + PAIR_BYTES * len(call.documents))
        if response.status_code != httpx.codes.OK:
            raise _told(response, body)
        reply = _reply(body, len(call.documents))
    for part in ("queue", "engine"):
        add_worker_seconds(part, reply.timings.get(part, 0.0))
    return reply


def _described(client: httpx.AsyncClient, call: ScoreCall) -> Attributes:
    """What a call's span says of it."""
    url = client.base_url
    return {
        "http.request.method": "POST",
        "server.address": url.host,
        "server.port": url.port or (443 if url.scheme == "https" else 80),
        "gen_ai.operation.name": "rerank",
        "gen_ai.request.model": call.model,
        "gen_ai.rerank.candidate.count": len(call.documents),
    }


async def get_served(client: httpx.AsyncClient) -> tuple[WorkerInfo, ...]:
    """The models that a worker serves, its default first; none where it says that it is not ready,
    or talks nonsense.

    Raises `httpx.HTTPError` where it does not answer.
    """
    async with client.stream("GET", "/info", headers=_PLAIN) as response:
        if response.status_code != httpx.codes.OK:
            return ()
        try:
            return tuple(_served_decoder.decode(await _body(response, MAX_INFO_BYTES)))
        except (WorkerFailed, *UNREADABLE):
            return ()


async def _body(response: httpx.Response, most: int) -> bytes:
    """The response's body as it is sent; `WorkerFailed` as soon as it is longer than it may be."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > most:
            raise WorkerFailed
    return bytes(body)


def _reply(body: bytes, documents: int) -> ScoreReply:
    """The reply if it is a whole and sane one; raises `WorkerFailed`."""
    try:
        reply = _reply_decoder.decode(body)
    except UNREADABLE:
        raise WorkerFailed from None
    if len(reply.pairs) != documents or not all(
        _sane(pair) for pair in reply.pairs if isinstance(pair, Scored)
    ):
        raise WorkerFailed
    if len(reply.digest) > MAX_DIGEST or not all(
        0 <= seconds < math.inf for seconds in reply.timings.values()
    ):
        raise WorkerFailed
    return reply


def _sane(pair: Scored) -> bool:
    return (
        math.isfinite(pair.logit)
        and max(pair.image_tokens, pair.reused_tokens) <= pair.prompt_tokens
    )


def _told(response: httpx.Response, body: bytes) -> RerankError:
    """The error that a worker answered with, where it concerns the client; else the call is wrong,
    or the worker has failed."""
    try:
        code = msgspec.json.decode(body, type=dict[str, object]).get("code")
    except UNREADABLE:
        code = None
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    if kind in (Overloaded, NoWorker, DeadlineExceeded, ModelNotFound) and kind:
        return kind()
    return InvalidRequest() if response.is_client_error else WorkerFailed()
