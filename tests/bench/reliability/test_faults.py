"""Faults are measured on a real gateway, real workers and a real Redis; a wrong score or a missing
answer is counted."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from model_store.families.tokens import LiteralTokenizer
from service.bench.reliability.faults import Extent, run_faults
from service.bench.reliability.injection import FAULTS
from service.bench.reliability.load import (
    NO_ANSWER,
    Outcome,
    Traffic,
    closed_loop,
    open_loop,
    send,
    succeeded,
    wrong_answers,
)
from tests.bench.plans import torch_plan
from tests.conftest import TINY


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic(LiteralTokenizer.load(TINY), documents=6, seed=1)


@contextmanager
def answering(more: float = 0.0, status: int = 200, every: int = 1) -> Iterator[str]:
    """A server whose logits are lengths plus `more`. Every `every`-th request is answered so, the
    others with `status`, or not at all (0)."""
    numbers = count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            good = next(numbers) % every == 0
            if not good and status == NO_ANSWER:
                return
            results = [
                {"index": index, "logit": len(text) + more}
                for index, text in enumerate(body["documents"])
            ]
            content = json.dumps({"results": results}).encode()
            self.send_response(200 if good else status)
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_requests_differ_and_half_of_their_pairs_were_asked_before(traffic: Traffic) -> None:
    sent: Counter[str] = Counter()
    for _ in range(200):
        sent.update(traffic.body()["documents"])
    assert sent.total() == 1200
    once = [text for text, times in sent.items() if times == 1]
    assert len(once) >= 600
    assert sent.total() - len(once) >= 500


def test_every_request_is_in_the_record(traffic: Traffic) -> None:
    with answering(status=503, every=3) as url:
        done: list[int] = []
        outcomes = closed_loop(url, traffic, callers=3, requests=30, on_progress=done.append)
        assert (len(outcomes), len(succeeded(outcomes)), max(done)) == (30, 10, 30)
        failed = [outcome for outcome in outcomes if not outcome.logits]
        assert {(outcome.status, outcome.retry_after) for outcome in failed} == {(503, True)}
        assert len(open_loop(url, traffic, rate=200, seconds=0.2)) == 40
    with answering(status=NO_ANSWER, every=2) as url:
        outcomes = closed_loop(url, traffic, callers=1, requests=4, on_progress=done.append)
        assert [outcome.status for outcome in outcomes] == [200, NO_ANSWER, 200, NO_ANSWER]
    assert send(url, traffic.body()).status == NO_ANSWER


def test_a_wrong_score_is_found(traffic: Traffic) -> None:
    with answering() as right, answering(more=0.01) as wrong:
        outcomes = [send(wrong, traffic.body()) for _ in range(6)]
        assert wrong_answers(right, outcomes, most=6, tolerance=1e-3) == 6
        assert wrong_answers(wrong, outcomes, most=6, tolerance=1e-3) == 0

        logits = dict(outcomes[0].logits)
        del logits[next(iter(logits))]
        other_pair = Outcome(200, 0.1, logits | {("q", "another text"): 1.0})
        assert wrong_answers(wrong, [other_pair], most=1, tolerance=1e-3) == 1


@pytest.mark.slow
def test_a_run_on_the_real_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("none", "Redis is killed", "Redis gives other pairs' values")
    extent = Extent(
        {name: FAULTS[name] for name in names}, requests_a_sample=24, overload_seconds=1
    )
    output = tmp_path / "faults.json"
    plan = torch_plan(output, samples=1, documents=4)
    assert run_faults(plan, extent) == 0
    assert "a gateway, two workers, a Redis" in capsys.readouterr().out
    report = json.loads(output.read_text(encoding="utf-8"))
    assert [(row["fault"], row["failed"], row["wrong"]) for row in report["rows"]] == [
        (name, 0, 0) for name in names
    ]
    assert report["overload"]["failed"] == 0
    assert report["overload"]["served"] > 0
