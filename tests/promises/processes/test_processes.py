"""A gateway of two processes is one gateway: one port, one set of metrics and of quotas, and an end
that loses no request. Real processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.responses import Response

from service.wire import ScoreCall
from tests.gateway.stand_in import StandIn, reply, scored
from tests.processes import Gmr, eventually
from tests.promises.limited_gateway import serving

pytestmark = pytest.mark.slow

BRIEF = {"RERANK_DRAIN_SECONDS": "0.2", "RERANK_GRACE_SECONDS": "3600"}
"""Periods for which a test waits for nothing that is cut off."""
KEYS = {
    "free": {},
    "slow": {"pairs_per_second": 0.01},
    "single": {"max_in_flight": 1},
}
"""The quota of each tenant, whose key is its name, repeated."""
PAIRS = 10


def key_of(tenant: str) -> str:
    return tenant * 8


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    """A worker that holds queries that say so, and scores others at once."""
    over = threading.Event()

    async def answer(call: ScoreCall) -> Response:
        while call.query == ["hold"] and not over.is_set():
            await asyncio.sleep(0.05)
        return reply([scored(1.0)] * len(call.documents))

    with serving(StandIn(answer).app) as url:
        yield url
        over.set()


@contextmanager
def processes(folder: Path, worker: str, **settings: str) -> Iterator[Gmr]:
    """A gateway of two processes."""
    arguments = ("gateway", "--workers", worker, "--processes", "2")
    with Gmr(*arguments, log=folder / "log", **BRIEF | settings) as gateway:
        gateway.await_ready()
        eventually(lambda: len(children(gateway)) == 2, why=gateway.said)
        yield gateway
        assert "Traceback" not in gateway.said()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[Gmr]:
    folder = tmp_path_factory.mktemp("processes")
    entries = [
        {"sha256": hashlib.sha256(key_of(name).encode()).hexdigest(), "tenant": name, **quota}
        for name, quota in KEYS.items()
    ]
    (folder / "keys.json").write_text(json.dumps({"keys": entries}))
    keys = str(folder / "keys.json")
    with processes(folder, worker, RERANK_API_KEYS_FILE=keys, RERANK_METRICS_PUBLIC="true") as both:
        yield both


def children(gateway: Gmr) -> list[psutil.Process]:
    return psutil.Process(gateway.pid).children()


def ask(gateway: Gmr, tenant: str, query: str = "a list") -> int:
    """The status of a request on a connection of its own, which either process may accept."""
    body = {"query": query, "documents": [str(each) for each in range(PAIRS)], "cache": "bypass"}
    headers = {"authorization": f"Bearer {key_of(tenant)}"}
    return httpx.post(f"{gateway.url}/rerank", json=body, headers=headers, timeout=60).status_code


def answered(gateway: Gmr, **fields: object) -> Counter[int]:
    """The requests that each process has answered, by its id, as the log has them."""
    lines = [json.loads(line) for line in gateway.said().splitlines() if line.startswith("{")]
    return Counter(
        line["pid"]
        for line in lines
        if line["message"] == "request" and fields.items() <= line.items()
    )


def ask_both(gateway: Gmr, tenant: str) -> list[int]:
    """The statuses of requests, of which each process has answered some."""
    statuses: list[int] = []
    before = answered(gateway)

    def both_answered() -> bool:
        statuses.append(ask(gateway, tenant))
        return len(answered(gateway) - before) == 2

    eventually(both_answered, why=gateway.said)
    return statuses


def test_metrics_of_all_processes_add_up_on_the_page_of_any(gateway: Gmr) -> None:
    pairs = 'rerank_pairs_total{digest="other",result="computed"}'
    requests = (
        'rerank_request_duration_seconds_count{dialect="native",route="/rerank",status="200"}'
    )
    counted = {name: gateway.metric(name) for name in (pairs, requests)}
    asked = len(ask_both(gateway, "free"))
    pages = {
        (
            gateway.metric(requests) - counted[requests],
            gateway.metric(pairs) - counted[pairs],
            gateway.metric("rerank_requests_queued_limit"),
            gateway.metric('rerank_workers{state="ready"}'),
            gateway.metric("rerank_processes"),
        )
        for _ in range(6)
    }
    assert pages == {(asked, PAIRS * asked, 256, 1, 2)}
    answer = httpx.get(f"{gateway.url}/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.text.endswith("# EOF\n")
    assert gateway.metric("process_cpu_seconds_total") > 0


def test_a_quota_of_pairs_holds_over_all_processes(gateway: Gmr) -> None:
    """The one request that is served leaves a debt."""
    statuses = ask_both(gateway, "slow")
    assert statuses == [200] + [429] * (len(statuses) - 1)


def test_requests_in_flight_count_over_all_processes_and_end_with_theirs(gateway: Gmr) -> None:
    """Processes that are killed are replaced, and their counters go on."""
    before = gateway.metric("rerank_processes_ended_total")
    pairs = 'rerank_pairs_total{digest="other",result="computed"}'
    scored_pairs = gateway.metric(pairs)
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(ask, gateway, "single", "hold")
        eventually(lambda: gateway.metric("rerank_requests_in_flight") == 1, why=gateway.said)
        assert set(ask_both(gateway, "single")) == {429}

        killed = children(gateway)
        for process in killed:
            process.kill()
        with pytest.raises(httpx.TransportError):
            held.result()

    ended = before + len(killed)
    eventually(lambda: is_whole_again(gateway, ended), why=gateway.said)
    assert not {process.pid for process in killed} & {child.pid for child in children(gateway)}
    assert gateway.metric("rerank_requests_in_flight") == 0
    assert gateway.metric(pairs) == scored_pairs
    assert ask(gateway, "single") == 200


def is_whole_again(gateway: Gmr, ended: float) -> bool:
    try:
        counts = [gateway.metric(f"rerank_processes{name}") for name in ("_ended_total", "")]
    except httpx.TransportError:  # a connection that a process had which was killed
        return False
    return counts == [ended, 2]


def talk(url: str, started: Counter[int], number: int) -> list[int]:
    """The statuses on one connection, until an answer says that it is the last."""
    statuses: list[int] = []
    body: dict[str, Any] = {"query": "a list", "documents": ["sorted"], "cache": "bypass"}
    with httpx.Client(base_url=url, timeout=60) as client:
        while True:
            answer = client.post("/rerank", json=body)
            statuses.append(answer.status_code)
            started[number] += 1
            if answer.headers.get("connection") == "close":
                return statuses


def test_sigterm_under_load_loses_no_request_and_leaves_nothing_behind(
    tmp_path: Path, worker: str
) -> None:
    with processes(tmp_path, worker, TMPDIR=str(tmp_path)) as gateway:
        assert list(tmp_path.glob("gmr-metrics-*"))
        family = psutil.Process(gateway.pid).children(recursive=True)
        started: Counter[int] = Counter()
        with ThreadPoolExecutor(8) as threads:
            talks = [threads.submit(talk, gateway.url, started, number) for number in range(8)]
            eventually(lambda: len(started) == len(talks), why=gateway.said)
            # a service manager tells each process, as a terminal does with Ctrl-C
            for child in children(gateway):
                child.terminate()
            gateway.signal(signal.SIGTERM)
            for each in talks:
                assert set(each.result()) == {200}
        assert gateway.wait() == 0
    assert not [process for process in family if process.is_running()]
    assert not list(tmp_path.glob("gmr-metrics-*"))


def test_a_failure_that_all_processes_would_have_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    with Gmr(
        *("gateway", "--workers", "http://127.0.0.1:9", "--processes", "2"),
        log=tmp_path / "log",
        RERANK_API_KEYS_FILE=str(tmp_path / "keys.json"),
    ) as gateway:
        assert gateway.wait() == 1
        assert gateway.said().count("keys.json") == 1
        assert "Traceback" not in gateway.said()


def test_the_service_in_one_process_refuses_several(tmp_path: Path) -> None:
    with Gmr("serve", log=tmp_path / "log", RERANK_PROCESSES="2") as service:
        assert service.wait() == 2
        assert "RERANK_PROCESSES is for `gmr gateway`" in service.said()


def test_processes_end_with_a_parent_that_is_killed(gateway: Gmr) -> None:
    left = children(gateway)
    gateway.kill()
    psutil.wait_procs(left, timeout=60)
    assert not [process for process in left if process.is_running()]
