"""A gateway in front of two vLLM workers answers as one with torch does, and keeps answering when
one engine dies."""

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


def by_index(answer: httpx.Response) -> dict[int, dict[str, Any]]:
    return {result["index"]: result for result in answer.json()["results"]}


def logits(answer: httpx.Response) -> dict[int, float]:
    return {index: result["logit"] for index, result in by_index(answer).items()}


@pytest.mark.parametrize(
    "query",
    ["a red circle", {"image": drawn("red")}, {"text": "like this", "image": drawn("blue")}],
)
def test_two_engines_answer_as_torch_does(
    both: tuple[httpx.Client, list[EngineWorker]], rerank: Rerank, query: Any
) -> None:
    documents = [*DOCUMENTS, *(f"document {number} " * (1 + number) for number in range(60))]
    expected = by_index(rerank(query=query, documents=documents))
    answer = ask(both[0], query=query, documents=documents)
    assert answer.status_code == 200, answer.text
    results = by_index(answer)
    assert sorted(results) == list(range(len(documents)))
    for index, result in results.items():
        assert result["logit"] == pytest.approx(expected[index]["logit"], abs=1e-3)
        assert result["meta"] == expected[index]["meta"]


def test_an_engine_that_dies_while_eight_clients_ask(
    both: tuple[httpx.Client, list[EngineWorker]],
) -> None:
    """Every client gets its scores or a retryable error, and soon all get their scores again."""
    gateway, (victim, survivor) = both
    processes = victim.descendants()
    documents = [f"document {number} " * 40 for number in range(120)]
    before = logits(ask(gateway, query="0", documents=documents))
    with ThreadPoolExecutor(CLIENTS) as clients:
        asking = [
            clients.submit(ask, gateway, query=str(number), documents=documents)
            for number in range(CLIENTS)
        ]
        eventually(lambda: f"rerank_requests_in_flight {CLIENTS}.0" in gateway.get("/metrics").text)
        os.kill(victim.part("VLLM::Engine"), signal.SIGKILL)
        answers = [future.result() for future in asking]
    for answer in answers:
        if answer.status_code == 200:
            assert sorted(by_index(answer)) == list(range(len(documents)))
        else:
            code = answer.json()["code"]
            assert code in RETRYABLE
            assert answer.status_code == BY_CODE[code].status
    end_with(victim, (1,), processes)
    eventually(lambda: ask(gateway, query="is it back?", documents=["yes"]).status_code == 200)
    assert survivor.live()
    for number in range(CLIENTS):
        again = ask(gateway, query=str(number), documents=documents)
        assert again.status_code == 200
        if number == 0:
            assert logits(again) == pytest.approx(before, abs=1e-4)
