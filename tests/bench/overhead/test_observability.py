"""The cost of observability: the arithmetic of the report, and a baseline that observes nothing and
answers as the service does."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from random import Random

import pytest

from service.bench.overhead.observability import Timings, cost, median_interval
from service.bench.overhead.sink import Sink

_PROGRAM = """
import asyncio, httpx, sys
{before}
from service.observability.request_log import finish_request
from service.web.asgi import add_common_routes, new_app
from service.observability.logs import log_to_stderr
from service.observability.metrics import CACHE_LOOKUPS
from service.observability.request_context import stage
from prometheus_client import generate_latest
log_to_stderr("info")
app = new_app()
add_common_routes(app, is_ready=lambda: True)

@app.get("/models")
async def models() -> str:
    with stage("parse"):
        CACHE_LOOKUPS.labels("memory", "hit").inc(7)
    return "well"

async def ask():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return (await client.get("/models")).text

print(asyncio.run(ask()))
page = generate_latest().decode()
print('result="hit",tier="memory"}} 7.0' in page, "parse" in page)
"""


def test_a_share_of_throughput_is_lost() -> None:
    quick = Timings(seconds=[[1.0] * 20, [2.0] * 20], cpu=10.0)
    slow = Timings(seconds=[[1.25] * 20, [2.5] * 20], cpu=20.0)
    row = cost("all", slow, quick)
    assert row["throughput_lost"] == pytest.approx(0.2)
    assert row["throughput_lost_95"] == pytest.approx([0.2, 0.2])
    assert row["cpu_ms_a_request"] == pytest.approx(20 / (26 * 20 * 2) * 1000)
    assert cost("nothing", quick, quick)["throughput_lost"] == 0


def test_an_interval_contains_the_median_and_is_wider_where_samples_differ() -> None:
    rng = Random(1)
    alike, apart = [], []
    for shift in (-0.1, -0.05, 0, 0.05, 0.1):
        rounds = [rng.gauss(0.03, 0.01) for _ in range(20)]
        alike.append(rounds)
        apart.append([value + shift for value in rounds])

    low, high = median_interval(alike, Random(0))
    lower, higher = median_interval(apart, Random(0))
    assert 0.02 < low < 0.03 < high < 0.04
    assert higher - lower > 3 * (high - low)


@pytest.mark.parametrize("observed", [True, False])
def test_the_baseline_observes_nothing_and_answers(observed: bool) -> None:
    before = ""
    if not observed:
        before = "from service.bench.overhead.unobserved import without_observability as off; off()"
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ['"well"', f"{observed} {observed}"]
    assert ('"route":"/models"' in done.stderr) == observed


def test_the_sink_accepts_everything() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    try:
        for _ in range(2):  # over one connection
            connection.request("POST", "/v1/traces", b"anything")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
    finally:
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()
