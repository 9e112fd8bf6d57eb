"""Waits of clients: the bound of `Retry-After`, and a request that waits for a worker."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.conftest import Outcomes
from tests.clients.environments import Run, run_blocks
from tests.clients.page import BLOCKS, PRINTED_URL, page_names
from tests.clients.targets import LIMITED, Targets, key_of, statuses
from tests.conftest import CALM, running
from tests.processes import eventually

pytestmark = pytest.mark.slow

MOST_SECONDS = 30
"""Cohere's SDKs obey a `Retry-After` of up to a minute, twice, and say nothing meanwhile."""


def test_no_client_is_told_to_wait_longer_than_the_bound(targets: Targets) -> None:
    headers = {"authorization": f"Bearer {key_of('debtor', LIMITED)}"}
    body = {"query": "q", "documents": ["d"] * 100}
    assert targets.answering.client.post("/rerank", json=body, headers=headers).status_code == 200

    refused = targets.answering.client.post("/rerank", json=body, headers=headers)
    assert refused.status_code == 429
    assert "more in 13 min" in refused.json()["message"]
    assert int(refused.headers["retry-after"]) == MOST_SECONDS

    for _ in range(20):
        headers = {"authorization": f"Bearer {key_of('debtor')}"}
        answer = targets.empty.client.post("/rerank", json=body, headers=headers)
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 3


def test_a_request_that_comes_before_the_worker_is_served_once_it_is_there(
    targets: Targets, outcomes: Outcomes, tmp_path: Path
) -> None:
    block = next(block for block in BLOCKS if block.name == "httpx-retries")
    code = block.code.replace(PRINTED_URL, targets.empty.url).replace("KEY", key_of("early"))
    patient = Run("early", code.replace("tries=3", "tries=1000"), page_names())

    with ThreadPoolExecutor() as threads:
        asked = threads.submit(run_blocks, block.environment, [patient], tmp_path)
        eventually(lambda: statuses(targets.empty, "early"), why=targets.empty.said)
        with running("worker", port=targets.worker_port, log=tmp_path / "worker", **CALM):
            outcome = asked.result()["early"]

    assert (outcome.printed, outcome.error) == ([[1, 2, 0]], None)
    *before, last = statuses(targets.empty, "early")
    assert set(before) == {503}
    assert last == 200
