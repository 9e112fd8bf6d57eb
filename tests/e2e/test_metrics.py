"""The records of a request at a gateway and its worker: metrics, a log line, and the times in its
answer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from model_store.checkpoint import SHIPPED
from model_store.manifest import manifest_digest
from service.observability.score_metrics import short_digest
from tests.e2e.test_two_processes import drawn
from tests.processes import Fleet, Gmr, eventually, fleet

pytestmark = pytest.mark.slow

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SEQUENCE = ("parse", "admit", "media", "cache_get", "score", "cache_set", "order")
DOCUMENTS: list[Any] = [
    "a red circle",
    {"image": drawn("red")},
    {"text": "blue", "image": drawn("blue")},
    "word " * 5000,
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("metrics"), 1) as running:
        yield running


def lines(process: Gmr) -> list[dict[str, Any]]:
    """The lines of its log about requests."""
    entries = [json.loads(line) for line in process.said().splitlines()]
    return [entry for entry in entries if entry["message"] == "request"]


def sample(process: Gmr, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    text = process.client.get("/metrics").text
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    total = 0.0
    for found_labels, value in found:
        if all(label in found_labels for label in wanted):
            total += float(value)
    return total


def timings(header: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", header)}


def test_a_request_shows_where_its_time_went_and_what_it_was(pair: Fleet) -> None:
    gateway, (worker,) = pair.gateway, pair.workers
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "first"}
    body = {"query": "a red circle", "documents": DOCUMENTS, "instruction": "find secrets"}
    answer = gateway.client.post("/rerank", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    spent = timings(answer.headers["server-timing"])
    assert spent.keys() == {*SEQUENCE, "decode", "queue", "engine", "total"}
    assert spent["queue"] + spent["engine"] <= 2 * spent["score"] + 1, (
        "two calls at most: texts, and images"
    )
    assert sum(spent[name] for name in SEQUENCE) <= spent["total"] + 1

    eventually(lambda: len(lines(gateway)) == 1)
    (line,) = lines(gateway)
    untimed = {name: value for name, value in line.items() if not name.endswith(("ms", "time"))}
    assert untimed == {
        "level": "info",
        "message": "request",
        "route": "/rerank",
        "status": 200,
        "dialect": "native",
        "documents": 4,
        "images": 2,
        "model": "gmr-tiny",
        "digest": short_digest(answer.json()["meta"]["model_digest"]),
        "cached": 0,
        "request_id": "first",
        "trace_id": TRACE,
    }

    assert 0 < line["deadline_left_ms"] <= 60_000
    assert {f"{name}_ms" for name in SEQUENCE} < line.keys()
    assert "secret" not in gateway.said() + worker.said()
    assert lines(worker) == [], "the worker's part is in the gateway's line"


def test_each_stage_is_measured_by_the_process_that_spends_it(pair: Fleet) -> None:
    gateway, (worker,) = pair.gateway, pair.workers
    for process, own, other in (
        (gateway, SEQUENCE, ("queue", "engine")),
        (worker, ("queue", "engine"), SEQUENCE),
    ):
        for name in own:
            assert sample(process, "rerank_stage_duration_seconds_count", stage=name) > 0
        for name in other:
            assert sample(process, "rerank_stage_duration_seconds_count", stage=name) == 0

    kind = {"documents": "2-10", "modality": "mixed"}
    assert sample(gateway, "rerank_scoring_duration_seconds_count", **kind) == 1
    assert sample(gateway, "rerank_request_images_sum") == 2


def test_a_worker_counts_its_steps_tokens_and_images(pair: Fleet) -> None:
    (worker,) = pair.workers
    steps = sample(worker, "rerank_engine_steps_total")
    assert steps > 0
    assert sample(worker, "rerank_batch_pairs_count") == steps
    assert sample(worker, "rerank_batch_fill_ratio_count") == steps

    assert sample(worker, "rerank_batch_pairs_sum") >= len(DOCUMENTS)
    assert sample(worker, "rerank_engine_prompt_tokens_total", source="computed") > 3_000
    assert sample(worker, "rerank_image_cache_lookups_total", result="miss") >= 2
    answered = {"dialect": "worker", "status": "200"}
    assert sample(worker, "rerank_request_duration_seconds_count", **answered) >= 1

    version = manifest_digest(SHIPPED / "gmr-tiny")[:12]
    assert sample(worker, "rerank_model_info", model="gmr-tiny", version=version) == 1

    for gauge in (
        "rerank_engine_calls_in_flight",
        "rerank_engine_pairs_in_flight",
        "rerank_engine_stalled_seconds",
    ):
        assert sample(worker, gauge) == 0


def pairs_by_result(gateway: Gmr, digest: str) -> dict[str, float]:
    pairs = {}
    for result in ("computed", "cached"):
        pairs[result] = sample(gateway, "rerank_pairs_total", digest=digest, result=result)
    return pairs


def test_scores_and_truncated_pairs_are_counted_by_model(pair: Fleet) -> None:
    gateway = pair.gateway
    digest = short_digest(gateway.client.get("/info").json()["model_digest"])
    before = pairs_by_result(gateway, digest)
    scores = sample(gateway, "rerank_relevance_score_sum", digest=digest)
    answer = gateway.rerank(query="a blue square", documents=["a blue square", "a dog"])
    again = gateway.rerank(query="a blue square", documents=["a blue square", "a dog"])
    assert (answer.status_code, again.status_code) == (200, 200)

    after = pairs_by_result(gateway, digest)
    assert after["computed"] - before["computed"] == 2
    assert after["cached"] - before["cached"] == 2

    added = sample(gateway, "rerank_relevance_score_sum", digest=digest) - scores
    answered = sum(result["relevance_score"] for result in answer.json()["results"])
    assert added == pytest.approx(2 * answered, abs=1e-6)
    assert sample(gateway, "rerank_truncated_pairs_total", digest=digest) == 1
    assert sample(gateway, "rerank_model_workers", model="gmr-tiny", digest=digest) == 1


def test_each_process_exports_its_build_and_its_resources(pair: Fleet) -> None:
    for process, role in ((pair.gateway, "gateway"), (pair.workers[0], "worker")):
        assert sample(process, "rerank_build_info", role=role) == 1
        assert sample(process, "process_resident_memory_bytes") > 2**20
        assert sample(process, "rerank_event_loop_lag_seconds_count") > 0
        limit = sample(process, "rerank_connections_limit")
        assert 1 <= sample(process, "rerank_connections") < limit


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_both_scrapes_are_clean(pair: Fleet, accept: str) -> None:
    for process in (pair.gateway, *pair.workers):
        scrape = process.client.get("/metrics", headers={"accept": accept})
        assert scrape.headers["content-type"].startswith(accept)
        assert (TRACE in scrape.text) == (accept != "text/plain")
        if accept == "text/plain":
            checked = subprocess.run(
                ["promtool", "check", "metrics"],
                input=scrape.content,
                capture_output=True,
                check=False,
            )
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_an_answer_to_what_is_no_http_has_its_time_too(pair: Fleet) -> None:
    done = subprocess.run(
        ["curl", "-s", "-i", "-X", "GET POST", f"{pair.gateway.url}/rerank"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "400" in done.stdout.splitlines()[0]
    assert re.search(r"^server-timing: total;dur=[\d.]+\s*$", done.stdout, re.MULTILINE)
