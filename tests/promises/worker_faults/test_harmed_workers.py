"""Of two workers one is killed, hangs or crawls, and no request fails; without any, requests fail
at once and in our words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.processes import Fleet, Gmr, eventually, fleet
from tests.promises.load import Body, Load, load, logits

pytestmark = pytest.mark.slow

CALLERS = 6
BODIES: list[Body] = [
    {
        "query": f"question number {number}",
        "documents": [f"document {place} of {number} " * 15 for place in range(12)],
        "cache": "bypass",
        "timeout_ms": 60_000,
    }
    for number in range(12)
]
SETTINGS = {
    "RERANK_WORKER_PROBE_MS": "100",
    "RERANK_WORKER_PROBE_TIMEOUT_MS": "700",  # a worker hangs after about two seconds of silence
    "RERANK_CAPACITY_TOKENS": "4000000",  # nobody is turned away, however slow the machine
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("two"), 2, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def right(two: Fleet) -> dict[str, dict[int, float]]:
    """The logits of each question while nothing is wrong."""
    return {body["query"]: logits(two.gateway.rerank(**body)) for body in BODIES}


def workers(gateway: Gmr, state: str) -> float:
    return gateway.metric(f'rerank_workers{{state="{state}"}}')


def retries(gateway: Gmr) -> float:
    return gateway.metric('rerank_worker_extra_calls_total{kind="retry"}')


def passes(worker: Gmr) -> float:
    """Forward passes that a worker has made."""
    return worker.metric("rerank_batch_tokens_count")


def all_right(done: Load, right: dict[str, dict[int, float]]) -> None:
    for body, answer in done.answers:
        assert logits(answer) == pytest.approx(right[body["query"]], abs=1e-4)


def test_a_worker_killed_in_the_middle_of_its_work_fails_no_request(
    two: Fleet, right: dict[str, dict[int, float]]
) -> None:
    gateway, (doomed, _) = two.gateway, two.workers
    before = retries(gateway)
    with load(gateway, BODIES, CALLERS) as done:
        done.more(CALLERS)
        begun = passes(doomed)
        eventually(lambda: passes(doomed) > begun)
        doomed.kill()
        done.more(2 * CALLERS)
        assert workers(gateway, "unready") == 1
        doomed.start()
        doomed.await_ready()
        begun = passes(doomed)
        eventually(lambda: passes(doomed) > begun, why=gateway.said)
    all_right(done, right)
    assert retries(gateway) > before, "calls were under way when it was killed"


def test_a_worker_that_hangs_fails_no_request_and_its_late_replies_reach_nobody(
    two: Fleet, right: dict[str, dict[int, float]]
) -> None:
    gateway, (hung, _) = two.gateway, two.workers
    before = retries(gateway)
    with load(gateway, BODIES, CALLERS) as done:
        done.more(CALLERS)
        begun = passes(hung)
        eventually(lambda: passes(hung) > begun)
        hung.pause()
        eventually(lambda: workers(gateway, "unready") == 1, why=gateway.said)
        done.more(2 * CALLERS)
        assert gateway.status("/health/ready") == 200
        hung.resume()
        eventually(lambda: workers(gateway, "ready") == 2, why=gateway.said)
        done.more(2 * CALLERS)
        begun = passes(hung)
        eventually(lambda: passes(hung) > begun)
    all_right(done, right)
    assert retries(gateway) > before
    assert "worker hangs" in gateway.said()


@contextmanager
def crawling(worker: Gmr) -> Iterator[None]:
    """A worker with a tenth of the time."""
    over = threading.Event()

    def crawl() -> None:
        while not over.wait(0.01):
            worker.pause()
            over.wait(0.09)
            worker.resume()

    thread = threading.Thread(target=crawl)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def pace(done: Load, answers: int) -> float:
    """Answers a second over the next so many."""
    start = time.monotonic()
    done.more(answers)
    return answers / (time.monotonic() - start)


def test_a_worker_that_crawls_costs_the_fleet_no_more_than_its_own_share(
    two: Fleet, right: dict[str, dict[int, float]]
) -> None:
    gateway, (slow, _) = two.gateway, two.workers
    with load(gateway, BODIES, CALLERS) as done:
        done.more(CALLERS)
        healthy = pace(done, 3 * CALLERS)
        with crawling(slow):
            done.more(CALLERS)
            crawled = pace(done, 3 * CALLERS)
    all_right(done, right)
    assert crawled >= 0.35 * healthy, "one of two workers is well: half, and noise"


def test_workers_behind_a_name_that_nobody_knows_are_waited_for(tmp_path: Path) -> None:
    with Gmr(
        "gateway", "--workers", f"dns://no-such-host.invalid:{free_port()}", log=tmp_path / "log"
    ) as gateway:
        eventually(lambda: gateway.status("/health/live") == 200, why=gateway.said)
        eventually(lambda: "workers' name looked up" in gateway.said())
        assert gateway.status("/health/ready") == 503
        answer = gateway.rerank(**BODIES[0])
        assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")


def test_workers_behind_a_name_are_found(
    two: Fleet, tmp_path: Path, right: dict[str, dict[int, float]]
) -> None:
    name = two.workers[0].url.replace("http://127.0.0.1", "dns://localhost")
    with Gmr("gateway", "--workers", name, log=tmp_path / "log") as gateway:
        gateway.await_ready()
        assert logits(gateway.rerank(**BODIES[0])) == pytest.approx(
            right[BODIES[0]["query"]], abs=1e-4
        )


def test_while_one_worker_is_dead_and_the_other_hangs_requests_are_told_to_come_again(
    two: Fleet,
) -> None:
    """From the moment on that it is known; what was under way is told so, too, and nobody that a
    worker failed."""
    gateway, (doomed, hung) = two.gateway, two.workers
    with load(gateway, BODIES, CALLERS) as done:
        done.more(CALLERS)
        begun = passes(hung)
        eventually(lambda: passes(hung) > begun)
        doomed.kill()
        hung.pause()
        done.more(2 * CALLERS, why=gateway.said)
        hung.resume()
        doomed.start()
        doomed.await_ready()
        eventually(lambda: workers(gateway, "ready") == 2, why=gateway.said)
    said = {(answer.status_code, answer.json().get("code")) for _, answer in done.answers}
    assert said <= {(200, None), (503, "no_worker")}
    assert (503, "no_worker") in said
    assert all(
        (answer.status_code == 503) == ("retry-after" in answer.headers)
        for _, answer in done.answers
    )


def test_without_any_worker_requests_are_told_so_at_once_and_answered_again_when_one_is_back(
    two: Fleet,
) -> None:
    gateway = two.gateway
    with load(gateway, BODIES, CALLERS) as done:
        done.more(CALLERS)
        for worker in two.workers:
            worker.kill()
        done.more(10 * CALLERS)
    said = {(answer.status_code, answer.json().get("code")) for _, answer in done.answers}
    assert said <= {(200, None), (502, "worker_failed"), (503, "no_worker")}
    _, last = done.answers[-1]
    assert (last.status_code, last.json()["code"]) == (503, "no_worker")
    assert all(
        (answer.status_code == 503) == ("retry-after" in answer.headers)
        for _, answer in done.answers
    )
    assert gateway.status("/health/live") == 200
    for worker in two.workers:
        worker.start()
    for worker in two.workers:
        worker.await_ready()
    eventually(lambda: workers(gateway, "ready") == 2)
    assert gateway.rerank(**BODIES[0]).status_code == 200
