"""The stream within one process: its checks, its lines, and that everything they held is
released."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from starlette.responses import Response

from service.errors import NoWorker, Overloaded
from service.gateway.admission.keys import digest
from service.web.error_response import error_response
from service.wire import ScoreCall
from tests.gateway.stand_in import Reader, StandIn, reply, scored
from tests.gateway.test_rerank_endpoint import gateway, picture, told, unread
from tests.metrics import metric_value

NDJSON = {"content-type": "application/x-ndjson"}
LINE = {"query": "q", "documents": ["1", "2"]}
KEY = "a-key-for-these-tests"
Answers = dict[Any, dict[str, Any]]


def lines_of(*lines: Any) -> bytes:
    """The body with these lines; those that are bytes as they are."""
    return b"\n".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
    )


async def stream(client: httpx.AsyncClient, *lines: Any, **headers: str) -> Answers:
    """The answers to lines, by id."""
    answer = await client.post(
        "/v1/rerank/stream", content=lines_of(*lines), headers=NDJSON | headers
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON["content-type"]
    found = [json.loads(line) for line in answer.text.splitlines()]
    by_id = {each["id"]: each for each in found}
    assert len(by_id) == len(found), "each line is answered once"
    return by_id


async def test_each_line_is_answered_with_its_own_id_or_its_number() -> None:
    async with gateway(Reader()) as client:
        answers = await stream(
            client,
            LINE | {"id": "a"},
            b"",
            LINE | {"id": 7, "top_n": 1},
            LINE | {"documents": [{"text": "3", "id": "d"}], "id": None},
        )
    assert {each: answers[each]["line"] for each in answers} == {"a": 1, 7: 3, 4: 4}
    assert [result["index"] for result in answers["a"]["results"]] == [1, 0]
    assert len(answers[7]["results"]) == 1
    assert answers[4]["results"][0]["id"] == "d"
    assert "warnings" not in answers["a"]["meta"]


async def test_a_bad_line_fails_alone() -> None:
    bad: dict[str, tuple[Any, str, list[Any] | None]] = {
        "item": (
            LINE | {"documents": [{"imag": "x"}]},
            "invalid_request",
            ["documents", 0, "imag"],
        ),
        "model": (LINE | {"model": "other"}, "model_not_found", None),
        "image": (
            LINE | {"query": {"image": "bm90IGFuIGltYWdl"}},
            "invalid_image",
            ["query", "image"],
        ),
        "empty": ({"query": "q"}, "invalid_request", ["documents"]),
        "long": (LINE | {"documents": ["long"]}, "pair_too_long", ["documents", 0]),
    }
    raw = {
        100: (b"{", "invalid_request"),
        101: (b"[]", "invalid_request"),
        102: (b'{"id":"cut' + b"x" * 3_000, "body_too_large"),
        103: (b"[" * 1_200, "invalid_request"),
        104: (b"\xff\xfe", "invalid_request"),
        105: (b'{"id":{},"query":"q","documents":["1"]}', "invalid_request"),
        106: (b'{"id":1.5,"query":"q","documents":["1"]}', "invalid_request"),
        107: (b'{"query":"q","documents":[NaN]}', "invalid_request"),
    }
    async with gateway(Reader(), max_body_bytes=2_048) as client:
        answers = await stream(
            client,
            *([b""] * (100 - 1)),
            *(line for line, _ in raw.values()),
            *(line | {"id": name} for name, (line, *_) in bad.items()),
            LINE | {"id": "good", "query": {"image": picture()}},
        )
    assert answers.keys() == {*raw, *bad, "good"}
    for number, (_, code) in raw.items():
        assert (answers[number]["code"], answers[number]["line"]) == (code, number)
    for name, (_, code, loc) in bad.items():
        assert answers[name]["code"] == code
        assert answers[name]["detail"] == answers[name]["message"]
        if loc:
            assert answers[name]["errors"][0]["loc"][: len(loc)] == loc
    assert answers["good"]["results"]


async def test_the_limit_of_a_body_holds_for_a_line_and_not_for_the_stream() -> None:
    async with gateway(Reader(), max_body_bytes=1_024) as client:
        answers = await stream(client, *(LINE | {"id": number} for number in range(200)))
    assert all(each["results"] for each in answers.values())


async def test_a_compressed_stream_is_decompressed_within_bounds() -> None:
    async with gateway(Reader()) as client:
        body = lines_of(LINE, LINE)
        for content, answered in (
            (gzip.compress(body), {1, 2}),
            (gzip.compress(b"\n" * 2**25), {None}),
            (b"no gzip", {None}),
        ):
            answer = await client.post(
                "/v1/rerank/stream", content=content, headers=NDJSON | {"content-encoding": "gzip"}
            )
            assert {json.loads(line)["id"] for line in answer.text.splitlines()} == answered
        answer = await client.post(
            "/v1/rerank/stream", content=unread(), headers=NDJSON | {"content-encoding": "br"}
        )
        assert told(answer) == (415, "unsupported_media_type")


async def test_errors_before_the_first_line_are_answered_as_everywhere() -> None:
    async with gateway(Reader(), api_keys=SecretStr(KEY), max_streams=0) as client:
        answer = await client.post("/v1/rerank/stream", content=unread(), headers=NDJSON)
        assert told(answer) == (401, "unauthorized")
        key = NDJSON | {"authorization": f"Bearer {KEY}"}
        answer = await client.post("/v1/rerank/stream", content=unread(), headers=key)
        assert told(answer) == (503, "overloaded")
        form = key | {"content-type": "application/x-www-form-urlencoded"}
        answer = await client.post("/v1/rerank/stream", content=unread(), headers=form)
        assert told(answer) == (415, "unsupported_media_type")

    worker = Reader()
    worker.info = None
    async with gateway(worker, ready=False) as client:
        answer = await client.post("/v1/rerank/stream", content=unread(), headers=NDJSON)
        assert told(answer) == (503, "no_worker")


async def test_a_line_waits_where_a_request_would_be_refused() -> None:
    """The worker is at its capacity at first."""
    refusals = [NoWorker(), Overloaded(), Overloaded()]

    async def busy(call: ScoreCall) -> Response:
        if refusals:
            return error_response(refusals.pop())
        return reply([scored(1.0)] * len(call.documents))

    async with gateway(StandIn(busy)) as client:
        assert (await stream(client, LINE))[1]["results"]
    assert not refusals


async def test_a_line_that_waits_in_vain_fails_at_its_deadline() -> None:
    async def busy(call: ScoreCall) -> Response:
        return error_response(Overloaded())

    async with gateway(StandIn(busy)) as client:
        answers = await stream(client, LINE | {"timeout_ms": 1_000})
    assert answers[1]["code"] in ("overloaded", "deadline_exceeded")


async def test_lines_are_charged_to_the_quota_and_wait_for_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    entry = {"sha256": digest(KEY.encode()).hex(), "tenant": "t", "pairs_per_second": 20}
    keys.write_text(json.dumps({"keys": [entry]}))
    before = metric_value("rerank_shed_total", reason="body_budget")
    key = {"authorization": f"Bearer {KEY}"}
    async with gateway(Reader(), api_keys_file=keys) as client:
        line = LINE | {"documents": ["1"] * 30}
        answers = await stream(client, line, line, line, line, **key)
        assert all(each["results"] for each in answers.values())
        answer = await client.post("/rerank", json=LINE, headers=key)
        assert told(answer) == (429, "rate_limited")
    assert metric_value("rerank_shed_total", reason="body_budget") == before


async def test_lines_count_and_a_request_does_not_wait_for_the_flight_of_a_line() -> None:
    """An equal pair of a line and of a request is scored for each, if the line was first."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def first_waits(call: ScoreCall) -> Response:
        if not asked.is_set():
            asked.set()
            await go.wait()
        return reply([scored(1.0)] * len(call.documents))

    counted = metric_value("rerank_stream_lines_total", outcome="ok")
    async with gateway(StandIn(first_waits)) as client:
        line = asyncio.create_task(stream(client, LINE))
        await asked.wait()
        assert (await client.post("/rerank", json=LINE)).status_code == 200
        go.set()
        assert (await line)[1]["results"]
    assert metric_value("rerank_stream_lines_total", outcome="ok") == counted + 1
    assert metric_value("rerank_stream_lines_in_flight") == metric_value("rerank_streams") == 0


async def test_memory_for_lines_is_shared_and_a_line_waits_for_it() -> None:
    """The budget of bodies has room for one line at a time."""
    async with gateway(Reader(), max_body_bytes=40_000, max_bodies_bytes=40_000) as client:
        text = "1" + " " * 15_000
        answers = await stream(client, *(LINE | {"documents": [text]} for _ in range(12)))
    assert len(answers) == 12
    assert all(each["results"] for each in answers.values())
