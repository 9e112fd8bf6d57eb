"""One call to one worker over HTTP: what is sent, how long it may take, and whether the reply can be used.

Knows the worker's protocol, nothing of other workers. Invariant: a reply is handed on only if it came in time, has one entry a
document, and every number in it makes sense.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

import httpx
import msgspec

from service.contracts import MSGPACK, REQUEST_ID_HEADER, TIMEOUT_HEADER, UNREADABLE, ScoreCall, Scored, ScoreReply, WorkerInfo
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
from service.telemetry import note, request_id

REPLY_MARGIN = 0.05
"""Share of the remaining time that a worker is not given, so that its partial reply still arrives in time."""
MAX_MARGIN_SECONDS = 0.25
LOOK_TIMEOUT_SECONDS = 2.0
MAX_MODELS = 1_024
"""Models that one worker may say it serves."""

_Served = Annotated[list[WorkerInfo], msgspec.Meta(min_length=1, max_length=MAX_MODELS)]

_encode = msgspec.msgpack.Encoder().encode
_reply_decoder = msgspec.msgpack.Decoder(ScoreReply)
_served_decoder = msgspec.json.Decoder(_Served)


async def post_score(client: httpx.AsyncClient, call: ScoreCall, until: float) -> ScoreReply:
    """A worker's reply, before `until` (event loop time).

    Raises what the worker said, `InvalidRequest` where it refused the call itself, `DeadlineExceeded`, `WorkerFailed` where the
    reply is of no use, and `httpx.HTTPError` where the worker cannot be reached.
    """
    left = until - asyncio.get_running_loop().time()
    allowed = left - min(left * REPLY_MARGIN, MAX_MARGIN_SECONDS)
    if allowed <= 0:
        raise DeadlineExceeded
    headers = {"content-type": MSGPACK, TIMEOUT_HEADER: str(math.ceil(allowed * 1000)), REQUEST_ID_HEADER: request_id.get()}
    try:
        async with asyncio.timeout_at(until):
            response = await client.post("/score", content=_encode(call), headers=headers)
    except TimeoutError:
        raise DeadlineExceeded from None
    reply = _reply(response, len(call.documents))
    for name, seconds in reply.timings.items():
        note(name, seconds)
    return reply


async def get_served(client: httpx.AsyncClient) -> tuple[WorkerInfo, ...]:
    """The models that a worker serves, its default first; none where it is not ready, or talks nonsense."""
    try:
        response = await client.get("/info", timeout=LOOK_TIMEOUT_SECONDS)
        return tuple(_served_decoder.decode(response.content)) if response.status_code == httpx.codes.OK else ()
    except (httpx.HTTPError, *UNREADABLE):
        return ()


def _reply(response: httpx.Response, documents: int) -> ScoreReply:
    """The reply if it is a whole and sane one; raises what the worker said, or `WorkerFailed`."""
    if response.status_code != httpx.codes.OK:
        raise _told(response)
    try:
        reply = _reply_decoder.decode(response.content)
    except UNREADABLE:
        raise WorkerFailed from None
    if len(reply.pairs) != documents or not all(_sane(pair) for pair in reply.pairs if isinstance(pair, Scored)):
        raise WorkerFailed
    return reply


def _sane(pair: Scored) -> bool:
    return math.isfinite(pair.logit) and max(pair.image_tokens, pair.reused_tokens) <= pair.prompt_tokens


def _told(response: httpx.Response) -> RerankError:
    """The error that a worker answered with, where it concerns the client; else the call is wrong, or the worker has failed."""
    try:
        code = msgspec.json.decode(response.content, type=dict[str, object]).get("code")
    except UNREADABLE:
        code = None
    kind = BY_CODE.get(code) if isinstance(code, str) else None
    if kind in (Overloaded, NoWorker, DeadlineExceeded, ModelNotFound) and kind:
        return kind()
    return InvalidRequest() if response.is_client_error else WorkerFailed()
