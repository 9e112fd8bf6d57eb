"""A gateway and its workers, each a process, answer as one process does, and survive each other's
end."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.conftest import Rerank, free_port
from tests.processes import Fleet, Gmr, eventually, fleet

pytestmark = pytest.mark.slow

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
    {
        "content": [
            {"type": "image_url", "image_url": {"url": drawn("blue", "WEBP")}},
            {"type": "text", "text": "blue"},
        ]
    },
    {"id": "last", "text": "word " * 5000},
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("pair"), 1) as running:
        yield running


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("both"), 2, RERANK_SPLIT="always") as running:
        yield running


def ask(gateway: Gmr, **body: Any) -> httpx.Response:
    return gateway.rerank(
        **{"query": "how do I sort a list", "documents": ["Sort the list."], "cache": "bypass"}
        | body
    )


QUERIES: list[Any] = [
    "a red circle",
    {"image": drawn("red")},
    {"text": "like this", "image": drawn("blue")},
]


@pytest.mark.parametrize("query", QUERIES)
def test_two_processes_answer_as_one_does(pair: Fleet, rerank: Rerank, query: Any) -> None:
    agree(ask(pair.gateway, query=query, documents=DOCUMENTS).json(), in_one(rerank, query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_request_that_is_split_is_answered_as_a_whole_one_is(
    both: Fleet, rerank: Rerank, query: Any
) -> None:
    before = shares(both.gateway)
    agree(ask(both.gateway, query=query, documents=DOCUMENTS).json(), in_one(rerank, query))
    assert shares(both.gateway) - before == 2


def in_one(rerank: Rerank, query: Any) -> dict[str, Any]:
    """The answer of one process that holds both."""
    answer: dict[str, Any] = rerank(query=query, documents=DOCUMENTS, cache="bypass").json()
    return answer


def shares(gateway: Gmr) -> float:
    """The number of workers that requests were split over, summed over all requests."""
    return gateway.metric("rerank_request_workers_sum")


def agree(two: dict[str, Any], one: dict[str, Any]) -> None:
    indexes = [result["index"] for result in two["results"]]
    assert indexes == [result["index"] for result in one["results"]]
    assert sorted(indexes) == list(range(len(DOCUMENTS)))
    for mine, theirs in zip(two["results"], one["results"], strict=True):
        assert mine.pop("logit") == pytest.approx(theirs.pop("logit"), abs=1e-5)
        assert mine.pop("relevance_score") == pytest.approx(theirs.pop("relevance_score"), abs=1e-5)
        assert mine == theirs
    assert {name: two[name] for name in ("model", "errors", "usage", "meta")} == {
        name: one[name] for name in ("model", "errors", "usage", "meta")
    }


def test_both_describe_the_same_model(pair: Fleet, client: httpx.Client) -> None:
    for path in ("/info", "/v1/models"):
        assert pair.gateway.client.get(path).json() == client.get(path).json()


def is_flat_failure(answer: httpx.Response) -> bool:
    body = answer.json()
    assert body.keys() == FLAT
    assert answer.headers["x-request-id"] == body["request_id"]
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    return (answer.status_code, body["code"]) in ((502, "worker_failed"), (503, "no_worker"))


def test_a_killed_worker_is_a_flat_error_until_it_is_back(pair: Fleet) -> None:
    gateway, (worker,) = pair.gateway, pair.workers
    before = ask(gateway).json()["results"]

    worker.kill()
    assert is_flat_failure(ask(gateway))
    eventually(lambda: gateway.status("/health/ready") == 503)
    assert is_flat_failure(ask(gateway))
    assert is_flat_failure(gateway.client.get("/info"))
    assert gateway.status("/health/live") == 200

    worker.start()
    gateway.await_ready()
    assert ask(gateway).json()["results"] == before


def test_a_worker_killed_while_it_scores_fails_its_requests(pair: Fleet) -> None:
    gateway, (worker,) = pair.gateway, pair.workers
    documents = [f"document {number} " * 200 for number in range(500)]
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(ask, gateway, documents=documents)
        eventually(lambda: gateway.metric("rerank_requests_in_flight") == 1)
        worker.kill()
        assert is_flat_failure(asking.result())

    worker.start()
    eventually(lambda: ask(gateway).status_code == 200)


def test_a_share_whose_worker_is_killed_is_scored_by_the_other(both: Fleet) -> None:
    gateway, (doomed, _) = both.gateway, both.workers
    documents = [f"document {number} " * 100 for number in range(200)]
    with ThreadPoolExecutor(1) as caller:
        asking = caller.submit(ask, gateway, documents=documents)
        eventually(lambda: doomed.metric("rerank_engine_calls_in_flight") >= 1)
        doomed.kill()
        answer = asking.result()

    assert answer.status_code == 200
    assert sorted(result["index"] for result in answer.json()["results"]) == list(range(200))
    assert gateway.metric('rerank_worker_extra_calls_total{kind="retry"}') >= 1

    before = shares(gateway)
    assert ask(gateway, documents=documents[:4]).status_code == 200
    assert shares(gateway) - before == 1

    doomed.start()
    doomed.await_ready()
    eventually(
        lambda: (
            ask(gateway, documents=documents[:4]).status_code == 200
            and shares(gateway) - before >= 4
        )
    )


def test_a_gateway_that_starts_before_its_worker_waits_for_it(tmp_path: Path) -> None:
    with Gmr(
        "gateway", "--workers", f"http://127.0.0.1:{free_port()}", log=tmp_path / "gateway"
    ) as gateway:
        eventually(lambda: gateway.status("/health/live") == 200, why=gateway.said)
        assert gateway.status("/health/ready") == 503
        assert is_flat_failure(ask(gateway))
