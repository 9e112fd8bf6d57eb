"""A gateway in front of two workers on the real engine answers as one with torch does, and goes on
when one engine dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from service.errors import BY_CODE
from tests.conftest import Rerank, free_port, running
from tests.e2e.test_two_processes import DOCUMENTS, drawn
from tests.processes import eventually
from tests.worker.engines.vllm.engine_worker import EngineWorker, end_with, engine_worker

pytestmark = pytest.mark.slow

CLIENTS = 8
RETRYABLE = {"no_worker", "overloaded", "worker_failed"}


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[httpx.Client, list[EngineWorker]]]:
    """A client of the gateway, and the two workers."""
    folder = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(engine_worker(tmp_path_factory.mktemp("engine"))) for _ in range(2)
        ]
        urls = ",".join(worker.url for worker in workers)
        # all clients are to be inside when the engine dies
        room = {"RERANK_CAPACITY_TOKENS": "4000000"}
        url = stack.enter_context(
            running("gateway", "--workers", urls, port=free_port(), log=folder / "gateway", **room)
        )
        client = stack.enter_context(httpx.Client(base_url=url, timeout=120))
        eventually(
            lambda: all(
                f'"worker":"{worker.url}' in (folder / "gateway").read_text() for worker in workers
            )
        )
        yield client, workers


def ask(gateway: httpx.Client, **body: Any) -> httpx.Response:
    return gateway.post("/rerank", json={"cache": "bypass", "timeout_ms": 60_000} | body)


@pytest.mark.parametrize(
    "query",
    ["a red circle", {"image": drawn("red")}, {"text": "like this", "image": drawn("blue")}],
)
def test_two_engines_answer_as_torch_does(
    both: tuple[httpx.Client, list[EngineWorker]], rerank: Rerank, query: Any
) -> None:
    documents = [*DOCUMENTS, *(f"document {number} " * (1 + number) for number in range(60))]
    wanted = {
        each["index"]: each for each in rerank(query=query, documents=documents).json()["results"]
    }
    answer = ask(both[0], query=query, documents=documents)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert sorted(each["index"] for each in results) == list(range(len(documents)))
    for each in results:
        assert each["logit"] == pytest.approx(wanted[each["index"]]["logit"], abs=1e-3)
        assert each["meta"] == wanted[each["index"]]["meta"]


def test_an_engine_that_dies_while_eight_clients_ask(
    both: tuple[httpx.Client, list[EngineWorker]],
) -> None:
    """Every client gets its scores or is told to try again, and soon all get their scores again."""
    gateway, (victim, survivor) = both
    processes = victim.descendants()
    documents = [f"document {number} " * 40 for number in range(200)]
    before = {
        each["index"]: each["logit"]
        for each in ask(gateway, query="0", documents=documents).json()["results"]
    }
    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [
            clients.submit(ask, gateway, query=str(number), documents=documents)
            for number in range(CLIENTS)
        ]
        eventually(lambda: f"rerank_requests_in_flight {CLIENTS}.0" in gateway.get("/metrics").text)
        os.kill(victim.part("VLLM::Engine"), signal.SIGKILL)
        answers = [each.result() for each in asking]
    for answer in answers:
        body = answer.json()
        if answer.status_code == 200:
            assert sorted(each["index"] for each in body["results"]) == list(range(len(documents)))
        else:
            assert (body["code"] in RETRYABLE, answer.status_code) == (
                True,
                BY_CODE[body["code"]].status,
            )
    end_with(victim, (1,), processes)
    eventually(lambda: ask(gateway, query="is it back?", documents=["yes"]).status_code == 200)
    assert survivor.live()
    for number in range(CLIENTS):
        again = ask(gateway, query=str(number), documents=documents)
        assert again.status_code == 200
        if number == 0:
            assert {
                each["index"]: each["logit"] for each in again.json()["results"]
            } == pytest.approx(before, abs=1e-4)
