"""The number of series stays the same for all inputs of clients and answers of workers."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from fastapi import FastAPI
from msgspec import structs
from prometheus_client import REGISTRY
from starlette.responses import Response

from service.errors import BY_CODE
from service.gateway.app import create_gateway
from service.gateway.dialects.catalogue import DIALECTS
from service.gateway.fleet.pool import MAX_NAME, MOST_MODELS
from service.gateway.openapi import OPENAPI_PATH
from service.gateway.settings import GatewaySettings
from service.observability.metric_types import LABELS
from service.wire import Refused, ScoreCall, Scored, ScoreReply, WorkerInfo
from tests.gateway.stand_in import INFO, StandIn, good, monitored

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW")
PATHS = (
    "/rerank",
    "/v1/rerank",
    "/v1/models",
    "/info",
    "/health/live",
    "/health/x",
    "/metrics",
    "/score",
    "/",
    "/_inference/rerank/x",
)
FIELDS = (
    "model",
    "documents",
    "query",
    "instruction",
    "top_n",
    "truncate",
    "on_error",
    "cache",
    "timeout_ms",
    "dialect",
    "texts",
)

ROUTES = {*DIALECTS, *PATHS, "unknown", "options", OPENAPI_PATH} - {"/health/x"}
NAMES = {dialect.name for dialects in DIALECTS.values() for dialect in dialects}
STATUSES = {
    "200",
    "204",
    "304",
    "307",
    "308",
    "405",
    *(str(kind.status) for kind in BY_CODE.values()),
}
BY_STATUS = {f"rerank_request_duration_seconds{end}" for end in ("", "_count", "_sum")}
"""A route may have a status for the first time; there are few of both."""


def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    found = set()
    for family in REGISTRY.collect():
        if family.name.startswith("rerank_"):
            for sample in family.samples:
                found.add((sample.name, tuple(sorted(sample.labels.items()))))
    return found


def word(chance: random.Random) -> str:
    return "".join(chance.choices('abcXYZ019-_/.%{}"\\\n\u00e9\u2028', k=chance.randrange(1, 40)))


def hostile_reply(chance: random.Random, call: ScoreCall) -> Response:
    """A worker that invents digests, timings, codes and statuses."""
    pairs = [
        chance.choice([Scored(chance.gauss(0, 5), 9, 0, True), Refused(word(chance)), None])
        for _ in call.documents
    ]
    digest = chance.choice([word(chance), f"sha256:{chance.getrandbits(256):064x}"])
    timings = {word(chance): chance.random(), "engine": chance.random()}
    body: bytes = msgspec.msgpack.encode(ScoreReply(digest, pairs, timings))
    if chance.random() < 0.3:
        body = msgspec.json.encode({"code": word(chance), "message": word(chance)})
    return Response(body, chance.choice([200, 200, 200, 400, 418, 500, 503, 599]))


async def attack(client: httpx.AsyncClient, chance: random.Random, requests: int) -> None:
    for _ in range(requests):
        body: dict[str, Any] = {
            "query": word(chance),
            "documents": [word(chance) for _ in range(chance.randrange(1, 4))],
        }
        body |= {chance.choice(FIELDS): word(chance)} if chance.random() < 0.5 else {}
        path = chance.choice([*PATHS, f"/{quote(word(chance))}", f"/rerank?{quote(word(chance))}"])
        headers = {
            name: word(chance).encode("ascii", "ignore")
            for name in ("user-agent", "x-request-id", "traceparent", "accept", "host")
        }
        request = client.build_request(chance.choice(METHODS), path, json=body)
        request.headers.update({name: value.replace(b"\n", b"") for name, value in headers.items()})
        await client.send(request)
        await client.post("/rerank", json={"on_error": "skip", "timeout_ms": 500} | body)


async def test_no_request_and_no_reply_makes_series() -> None:
    chance = random.Random(0)

    async def answer(call: ScoreCall) -> Response:
        return hostile_reply(chance, call)

    app: FastAPI = create_gateway(GatewaySettings(), [StandIn(answer).client])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
    ):
        earlier = series()
        await attack(client, chance, 150)
        before = series()
        await attack(client, chance, 150)
        assert {
            each for each in series() - before if each[0].removesuffix("_bucket") not in BY_STATUS
        } == set()
        for name, values in series() - earlier:
            labels = LABELS.get(name) or LABELS[name.rpartition("_")[0]]
            for label, value in values:
                assert label == "le" or not labels[label] or value in labels[label], (
                    name,
                    label,
                    value,
                )
                assert label != "status" or value in STATUSES
                assert label != "route" or value in ROUTES
                assert label != "dialect" or value in {*NAMES, "none"}


async def test_made_up_models_have_few_series_and_short_names() -> None:
    made_up: list[WorkerInfo] = [
        structs.replace(INFO, model=f"{number:>300}", digest="sha256:" + "a" * 64)
        for number in range(500)
    ]
    async with monitored(StandIn(good, INFO, *made_up).client) as workers:
        found = [dict(values) for name, values in series() if name == "rerank_model_workers"]
        assert len(found) <= MOST_MODELS < len(workers.names())
        assert all(len(each["model"]) <= MAX_NAME for each in found)
