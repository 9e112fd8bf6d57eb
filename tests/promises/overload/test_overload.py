"""A load far above capacity: every answer is a 200 or a 503 with `Retry-After`, work continues,
refused requests are not decoded, and afterwards nothing of the load is left. Real processes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from service.gateway.admission.keys import digest, new_key
from tests.processes import Fleet, Gmr, eventually, fleet
from tests.promises.overload.siege import DOCUMENTS, Tally, closed_loop, open_loop, request, visitor

pytestmark = pytest.mark.slow

LOUD, QUIET = new_key(), new_key()
SECONDS = 6.0
MAX_WAIT_MS = 1_000
LARGE = 400
"""Documents of a request that takes several times longer than anybody may wait."""
HELD = (
    "rerank_requests_in_flight",
    "rerank_requests_queued",
    "rerank_admitted_tokens",
    "rerank_request_bodies_bytes",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("overload")
    keys = [
        {"sha256": digest(key.encode()).hex(), "tenant": name}
        for name, key in (("loud", LOUD), ("quiet", QUIET))
    ]
    (folder / "keys.json").write_text(json.dumps({"keys": keys}), encoding="utf-8")
    settings = {
        "RERANK_API_KEYS_FILE": str(folder / "keys.json"),
        "RERANK_METRICS_PUBLIC": "true",
        "RERANK_MAX_QUEUE_MS": str(MAX_WAIT_MS),
    }
    with fleet(folder, 1, **settings) as started:
        yield started


@dataclass(frozen=True, slots=True)
class Measured:
    """The measured capacity of a worker."""

    per_second: float
    per_processor_second: float


def large() -> dict[str, Any]:
    """A new request with many documents."""
    documents = [text for _ in range(LARGE // DOCUMENTS + 1) for text in request()["documents"]]
    return request() | {"documents": documents[:LARGE], "timeout_ms": 60_000}


def processor_seconds(worker: Gmr) -> float:
    times = psutil.Process(worker.pid).cpu_times()
    return float(times.user + times.system)


@pytest.fixture(scope="module")
def capacity(served: Fleet) -> Measured:
    """Requests answered with three callers."""
    worker = served.workers[0]
    asyncio.run(closed_loop(served.gateway, 3, 1, key=LOUD, picture_every=4))
    begun, used = time.monotonic(), processor_seconds(worker)
    tally = asyncio.run(closed_loop(served.gateway, 3, SECONDS, key=LOUD, picture_every=4))
    assert set(tally.statuses) == {200}
    return Measured(
        tally.good / (time.monotonic() - begun), tally.good / (processor_seconds(worker) - used)
    )


def nothing_is_held(gateway: Gmr) -> bool:
    return all(gateway.metric(name) == 0 for name in HELD)


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_ten_times_the_load(served: Fleet, capacity: Measured, loop: str) -> None:
    """Measured by the worker's CPU time, which other programs do not affect: the worker does as
    much work as before, and is never idle."""
    gateway, worker = served.gateway, served.workers[0]
    images, used = gateway.metric("rerank_images_total"), processor_seconds(worker)
    if loop == "closed":
        load = closed_loop(gateway, 60, SECONDS, key=LOUD, picture_every=4)
    else:
        load = open_loop(gateway, 10 * capacity.per_second, SECONDS, key=LOUD, picture_every=4)
    tally, inside = asyncio.run(watched(gateway, load))
    used = processor_seconds(worker) - used
    after = gateway.client.post(
        "/rerank", json=request(), headers={"authorization": f"Bearer {LOUD}"}
    )
    assert after.status_code == 200, "who comes when the load has ended is served"
    answered_or_told_when(tally)
    assert tally.statuses[503] > 0, "it was no overload"
    assert tally.good / used >= 0.7 * capacity.per_processor_second
    assert sum(each >= 1 for each in inside) >= 0.9 * len(inside), inside
    assert gateway.metric("rerank_images_total") - images <= tally.statuses[200], (
        "nothing of the refused is decoded"
    )
    eventually(lambda: nothing_is_held(gateway), why=gateway.said)


async def watched(gateway: Gmr, load: Coroutine[Any, Any, Tally]) -> tuple[Tally, list[float]]:
    """The results of a load, and the number of admitted requests during its second half."""
    inside: list[float] = []

    async def watch() -> None:
        await asyncio.sleep(SECONDS / 2)
        while True:
            inside.append(await asyncio.to_thread(gateway.metric, "rerank_requests_in_flight"))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    task = asyncio.create_task(load)
    await asyncio.sleep(SECONDS * 0.95)
    watching.cancel()
    return await task, inside


def answered_or_told_when(tally: Tally) -> None:
    assert set(tally.statuses) <= {200, 503}, tally.statuses
    assert set(tally.codes) <= {"overloaded"}, tally.codes
    assert all(each.isdecimal() and 1 <= int(each) <= 30 for each in tally.retry_after)


def test_a_quiet_tenant_is_served_while_another_floods(served: Fleet, capacity: Measured) -> None:
    async def story() -> tuple[Tally, Tally]:
        async with asyncio.TaskGroup() as group:
            loud = group.create_task(
                open_loop(served.gateway, 10 * capacity.per_second, SECONDS, key=LOUD)
            )
            quiet = group.create_task(closed_loop(served.gateway, 1, SECONDS, key=QUIET))
        return loud.result(), quiet.result()

    loud, quiet = asyncio.run(story())
    answered_or_told_when(loud)
    assert loud.statuses[503] > 0, "it was no flood"
    assert set(quiet.statuses) == {200}, quiet.statuses


@pytest.mark.parametrize("tenant", ["quiet", "loud"])
def test_two_large_requests_of_a_tenant_shut_no_small_one_out(served: Fleet, tenant: str) -> None:
    """Each takes many times longer than the maximum wait; meanwhile all small requests of its
    own tenant and of others are answered."""

    async def story() -> tuple[list[httpx.Response], list[int]]:
        key = QUIET if tenant == "quiet" else LOUD
        async with visitor(served.gateway, LOUD) as loud, visitor(served.gateway, key) as other:
            asked = [
                asyncio.create_task(loud.post("/rerank", json=large(), timeout=300))
                for _ in range(2)
            ]
            await asyncio.to_thread(
                eventually, lambda: served.gateway.metric("rerank_requests_in_flight") == 2
            )
            statuses = []
            while not any(task.done() for task in asked):
                statuses.append((await other.post("/rerank", json=request())).status_code)
            return await asyncio.gather(*asked), statuses

    answers, statuses = asyncio.run(story())
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [len(answer.json()["results"]) for answer in answers] == [LARGE, LARGE]
    assert len(statuses) >= 3, "they were not there together"
    assert set(statuses) == {200}, statuses
    eventually(lambda: nothing_is_held(served.gateway), why=served.gateway.said)


def test_clients_that_leave_leave_nothing_behind_and_no_answer_goes_to_another(
    served: Fleet,
) -> None:
    """Half of all requests are cancelled at some time; the others get their own scores, with
    their own ids."""
    gateway, dice = served.gateway, random.Random(0)
    asked = {
        key: [named(request(), f"{name}{number}") for number in range(6)]
        for name, key in (("l", LOUD), ("q", QUIET))
    }

    async def story() -> list[tuple[dict[str, Any], httpx.Response]]:
        async with visitor(gateway, LOUD) as loud, visitor(gateway, QUIET) as quiet:
            clients = {LOUD: loud, QUIET: quiet}
            alone = [
                (body, await clients[key].post("/rerank", json=body))
                for key, each in asked.items()
                for body in each
            ]
            answers: list[tuple[dict[str, Any], httpx.Response]] = []

            async def call(key: str, body: dict[str, Any], leaves: float | None) -> None:
                try:
                    async with asyncio.timeout(leaves):
                        answers.append(
                            (
                                body,
                                await clients[key].post("/rerank", json=body | {"cache": "bypass"}),
                            )
                        )
                except TimeoutError:
                    pass

            for _ in range(8):
                async with asyncio.TaskGroup() as group:
                    for key in (LOUD, QUIET):
                        for body in asked[key]:
                            group.create_task(
                                call(key, body, dice.choice([None, dice.uniform(0, 0.3)]))
                            )
            own = {body["documents"][0]["id"]: answer.json() for body, answer in alone}
            for body, answer in answers:
                if answer.status_code == httpx.codes.OK:
                    is_its_own(answer.json(), own[body["documents"][0]["id"]])
            return answers

    statuses = [answer.status_code for _, answer in asyncio.run(story())]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 10
    eventually(lambda: nothing_is_held(gateway), why=gateway.said)
    assert (
        served.gateway.client.post(
            "/rerank", json=request(), headers={"authorization": f"Bearer {QUIET}"}
        ).status_code
        == 200
    )


def named(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The request with an id for each document."""
    return body | {
        "documents": [
            {"text": text, "id": f"{name}-{place}"} for place, text in enumerate(body["documents"])
        ]
    }


def is_its_own(answer: dict[str, Any], alone: dict[str, Any]) -> None:
    scores, expected = (
        {each["id"]: each["logit"] for each in of["results"]} for of in (answer, alone)
    )
    assert scores == pytest.approx(expected, abs=1e-3)
