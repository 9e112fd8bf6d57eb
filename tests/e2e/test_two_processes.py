"""A gateway and its workers, each a process, answer as one process does, and outlive each other."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.conftest import START_SECONDS, Rerank, free_port, running

pytestmark = pytest.mark.slow

CPU = {"RERANK_DEVICE": "cpu", "RERANK_THREADS": "1"}
FLAT = {"code", "message", "detail", "request_id"}


def drawn(color: str, format_: str = "PNG") -> str:
    picture, file = Image.new("RGB", (90, 70), "white"), io.BytesIO()
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 60), fill=color)
    picture.save(file, format_)
    return f"data:image/{format_.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


DOCUMENTS: list[Any] = [
    "Sort the list in ascending order and return None.",
    {"image": drawn("red")},
    {"text": "a green circle", "image": drawn("green", "JPEG")},
    {"content": [{"type": "image_url", "image_url": {"url": drawn("blue", "WEBP")}}, {"type": "text", "text": "blue"}]},
    {"id": "last", "text": "word " * 5000},
]


class Worker:
    """A `gmr worker` process that can be killed and started again on its port."""

    def __init__(self, log: Path) -> None:
        self.port, self._log = free_port(), log
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "service.cli", "worker", "--port", str(self.port)]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, env=os.environ | CPU, stdout=output, stderr=subprocess.STDOUT)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def end(self, sign: signal.Signals) -> int:
        self._process.send_signal(sign)
        return self._process.wait(timeout=60)


@contextmanager
def processes(folder: Path, workers: int, **settings: str) -> Iterator[tuple[list[Worker], httpx.Client]]:
    """Workers and a gateway over them, all of which are ready."""
    fleet: list[Worker] = []
    try:
        for number in range(workers):
            fleet.append(Worker(folder / f"worker-{number}"))
        urls = ",".join(worker.url for worker in fleet)
        for worker in fleet:
            eventually(worker.ready)
        with (
            running("gateway", "--workers", urls, port=free_port(), log=folder / "gateway", **settings) as url,
            httpx.Client(base_url=url, timeout=60) as gateway,
        ):
            yield fleet, gateway
    finally:
        for worker in fleet:
            worker.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, httpx.Client]]:
    with processes(tmp_path_factory.mktemp("pair"), 1) as ((worker,), gateway):
        yield worker, gateway


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Worker], httpx.Client]]:
    with processes(tmp_path_factory.mktemp("fleet"), 2, RERANK_SPLIT="always") as both:
        yield both


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def status(gateway: httpx.Client, path: str = "/health/ready") -> int:
    return gateway.get(path).status_code


def ask(gateway: httpx.Client, **body: Any) -> httpx.Response:
    return gateway.post(
        "/rerank", json={"query": "how do I sort a list", "documents": ["Sort the list."], "cache": "bypass"} | body
    )


QUERIES: list[Any] = ["a red circle", {"image": drawn("red")}, {"text": "like this", "image": drawn("blue")}]


@pytest.mark.parametrize("query", QUERIES)
def test_two_processes_answer_as_one_does(pair: tuple[Worker, httpx.Client], rerank: Rerank, query: Any) -> None:
    agree(ask(pair[1], query=query, documents=DOCUMENTS).json(), in_one(rerank, query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_request_that_is_split_is_answered_as_a_whole_one_is(
    fleet: tuple[list[Worker], httpx.Client], rerank: Rerank, query: Any
) -> None:
    before = shares(fleet[1])
    agree(ask(fleet[1], query=query, documents=DOCUMENTS).json(), in_one(rerank, query))
    assert shares(fleet[1]) - before == 2


def in_one(rerank: Rerank, query: Any) -> dict[str, Any]:
    """The answer of one process that holds both."""
    answer: dict[str, Any] = rerank(query=query, documents=DOCUMENTS, cache="bypass").json()
    return answer


def shares(gateway: httpx.Client) -> float:
    """How many workers requests were split over, all in all."""
    (total,) = re.findall(r"^rerank_request_workers_sum (\S+)$", gateway.get("/metrics").text, re.MULTILINE)
    return float(total)


def agree(two: dict[str, Any], one: dict[str, Any]) -> None:
    assert [each["index"] for each in two["results"]] == [each["index"] for each in one["results"]]
    assert sorted(each["index"] for each in two["results"]) == list(range(len(DOCUMENTS)))
    for mine, theirs in zip(two["results"], one["results"], strict=True):
        assert mine.pop("logit") == pytest.approx(theirs.pop("logit"), abs=1e-5)
        assert mine.pop("relevance_score") == pytest.approx(theirs.pop("relevance_score"), abs=1e-5)
        assert mine == theirs
    assert {name: two[name] for name in ("model", "errors", "usage", "meta")} == {
        name: one[name] for name in ("model", "errors", "usage", "meta")
    }


def test_both_describe_the_same_model(pair: tuple[Worker, httpx.Client], client: httpx.Client) -> None:
    for path in ("/info", "/v1/models"):
        assert pair[1].get(path).json() == client.get(path).json()


def is_flat_failure(answer: httpx.Response) -> bool:
    body = answer.json()
    assert body.keys() == FLAT
    assert answer.headers["x-request-id"] == body["request_id"]
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    return (answer.status_code, body["code"]) in ((502, "worker_failed"), (503, "no_worker"))


def test_a_killed_worker_is_a_flat_error_until_it_is_back(pair: tuple[Worker, httpx.Client]) -> None:
    worker, gateway = pair
    before = ask(gateway).json()["results"]
    assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    assert is_flat_failure(ask(gateway))
    eventually(lambda: status(gateway) == 503)
    assert is_flat_failure(ask(gateway))
    assert is_flat_failure(gateway.get("/info"))
    assert status(gateway, "/health/live") == 200
    worker.start()
    eventually(lambda: status(gateway) == 200)
    assert ask(gateway).json()["results"] == before


def test_a_worker_killed_while_it_scores_fails_its_requests(pair: tuple[Worker, httpx.Client]) -> None:
    worker, gateway = pair
    answers: list[httpx.Response] = []
    documents = [f"document {number} " * 200 for number in range(500)]
    asking = threading.Thread(target=lambda: answers.append(ask(gateway, documents=documents)))
    asking.start()
    eventually(lambda: "rerank_requests_in_flight 1.0" in gateway.get("/metrics").text)
    worker.end(signal.SIGKILL)
    asking.join()
    assert is_flat_failure(answers[0])
    worker.start()
    eventually(lambda: status(gateway) == 200)
    assert ask(gateway).status_code == 200


def test_a_share_whose_worker_is_killed_is_scored_by_the_other(fleet: tuple[list[Worker], httpx.Client]) -> None:
    (doomed, _), gateway = fleet
    documents = [f"document {number} " * 100 for number in range(200)]
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(ask(gateway, documents=documents)))
    asking.start()
    eventually(lambda: "rerank_requests_in_flight 1.0" in gateway.get("/metrics").text)
    doomed.end(signal.SIGKILL)
    asking.join()
    assert answers[0].status_code == 200
    assert sorted(each["index"] for each in answers[0].json()["results"]) == list(range(200))
    assert 'rerank_worker_calls_total{outcome="worker_failed"} 1.0' in gateway.get("/metrics").text
    before = shares(gateway)
    assert ask(gateway, documents=documents[:4]).status_code == 200
    assert shares(gateway) - before == 1
    doomed.start()
    eventually(doomed.ready)
    eventually(lambda: ask(gateway, documents=documents[:4]).status_code == 200 and shares(gateway) - before >= 4)


def test_a_gateway_that_starts_before_its_worker_waits_for_it(tmp_path: Path) -> None:
    port, url = free_port(), f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "service.cli", "gateway", "--workers", url, "--port", str(port)]
    gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            eventually(lambda: reachable(client))
            assert status(client) == 503
            assert is_flat_failure(ask(client))
    finally:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(timeout=60) in (0, -signal.SIGTERM)


def reachable(client: httpx.Client) -> bool:
    try:
        return status(client, "/health/live") == 200
    except httpx.TransportError:
        return False
