"""A worker on vLLM counts what one on torch counts, under the same names, and passes vLLM's own
metrics on."""

from __future__ import annotations

import re
import subprocess

import pytest
from msgspec import structs

from service.wire import Scored
from tests.worker.calls import as_call, pictures
from tests.worker.engines.vllm.engine_worker import EngineWorker

pytestmark = pytest.mark.slow

GROWS = (
    "rerank_engine_steps_total",
    "rerank_batch_pairs_sum",
    "rerank_batch_tokens_sum",
    "rerank_batch_fill_ratio_count",
    'rerank_engine_prompt_tokens_total{source="computed"}',
    'rerank_engine_prompt_tokens_total{source="prefix"}',
    'rerank_image_cache_lookups_total{result="hit"}',
    'rerank_image_cache_lookups_total{result="miss"}',
    'rerank_stage_duration_seconds_count{stage="engine"}',
    'rerank_stage_duration_seconds_count{stage="queue"}',
)


async def scrape(worker: EngineWorker) -> dict[str, float]:
    text = (await worker.client.get("/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^(\w\S*) (\S+)$", text, re.MULTILINE)
    }


async def test_steps_tokens_and_images_are_counted(cached: EngineWorker) -> None:
    images = pictures(5, "metrics")
    call = as_call(
        "find",
        ("metrics of two red circles",),
        [*images, *((f"metrics {number} " * 20,) for number in range(20))],
    )
    before = await scrape(cached)
    pairs = await cached.ask(call)
    await cached.ask(structs.replace(call, documents=call.documents[::-1]))
    after = await scrape(cached)
    grown = {name: after[name] - before.get(name, 0.0) for name in GROWS}
    assert all(value > 0 for value in grown.values()), grown

    scored = [pair for pair in pairs if isinstance(pair, Scored)]
    assert len(scored) == len(call.documents)
    assert grown["rerank_batch_pairs_sum"] == 2 * len(scored)
    assert grown['rerank_image_cache_lookups_total{result="miss"}'] == len(images)

    computed, prefix = (
        grown[f'rerank_engine_prompt_tokens_total{{source="{source}"}}']
        for source in ("computed", "prefix")
    )

    assert computed + prefix == 2 * sum(pair.prompt_tokens for pair in scored)
    assert grown["rerank_batch_tokens_sum"] == computed, (
        "vLLM says of a step what it says of its pairs"
    )


async def test_vllms_own_metrics_are_passed_on_with_buckets_that_tell_something(
    cached: EngineWorker,
) -> None:
    text = (await cached.client.get("/metrics")).text
    for name in (
        "num_requests_running",
        "kv_cache_usage_perc",
        "prefix_cache_hits_total",
        "request_success_total",
    ):
        assert f"vllm:{name}{{" in text

    buckets = set(re.findall(r'vllm:e2e_request_latency_seconds_bucket{.*?le="([^"]+)"', text))
    assert {"0.005", "0.25", "0.5", "1.0", "2.5"} <= buckets
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    complaints = [
        line
        for line in (checked.stdout + checked.stderr).splitlines()
        if not line.startswith("vllm:")
    ]

    assert complaints == []
