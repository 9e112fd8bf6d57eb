"""`gmr bench --routing`: the gain of splitting a request over workers, and of sending equal queries
or recurring documents to one worker, measured in turns on two workers.

Depends on gateways and requests, on no routing rule. Invariant: the ways that are compared get
requests of equal shape in one run, never the same one twice, and must agree on the scores of one
common request.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from rich.console import Console

from model_store.checkpoint import resolve
from model_store.families.tokens import LiteralTokenizer
from service.bench.calls import get, post, prompt_tokens
from service.bench.plan import Plan
from service.bench.results import largest_difference, write_report
from service.bench.routing.gateways import running_gateways
from service.bench.routing.report import WORKERS, SplitRow, StreamRow, split_table, stream_table
from service.bench.routing.requests import Body, Extent, RequestMaker

AGREEMENT = 1e-3
"""Largest difference between two ways' logits of one pair; beyond it the timings are void."""
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
CALLERS = (1, 4)


def run_routing(plan: Plan, extent: Extent | None = None) -> int:
    """Run, print two tables, write JSON; returns the exit code: 1 where the ways disagree on
    scores."""
    extent = extent or Extent()
    console, folder = Console(), resolve(plan.model).folder
    maker = RequestMaker(LiteralTokenizer.load(folder), extent)
    splits: list[SplitRow] = []
    streams: list[StreamRow] = []
    with running_gateways(folder, plan) as gateways:
        disagreement = _disagreement(gateways, maker)
        versions = json.loads(get(gateways["whole"], "/info"))["versions"]
        sizes = sorted({min(size, plan.documents) for size in SIZES})
        for query in extent.queries:
            for size in sizes:
                splits.append(_compare_split(gateways, maker, query, size, plan.samples))
        for letter in ("D",) if _begins_with_document(gateways["whole"]) else ("T", "Q"):
            for callers in CALLERS:
                streams.append(_compare_streams(gateways, maker, letter, callers, plan.samples))

    console.print(split_table(splits))
    console.print(stream_table(streams))
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "model": plan.model,
        "engine": plan.engine,
        "workers": WORKERS,
        "samples": plan.samples,
        "disagreement": disagreement,
        "versions": versions,
        "split": [row.as_json() for row in splits],
        "streams": [asdict(row) for row in streams],
    }
    if plan.output:
        write_report(report, plan.output)

    void = not disagreement <= AGREEMENT
    if void:
        console.print("[red]The ways do not agree on scores: these timings are void.[/red]")
    return int(void)


def _timed(url: str, body: Body) -> float:
    """Seconds until the answer to a request."""
    content = json.dumps(body).encode()
    start = time.perf_counter()
    post(url, "/rerank", content)
    return time.perf_counter() - start


def _disagreement(gateways: Mapping[str, str], maker: RequestMaker) -> float:
    """Warm all gateways up with one common request; returns the largest difference of a pair's
    logits."""
    body = json.dumps(maker.single("short", 16)).encode()
    reference: dict[int, float] = {}
    pairs: list[tuple[float, float]] = []

    for url in gateways.values():
        for result in json.loads(post(url, "/rerank", body))["results"]:
            first = reference.setdefault(result["index"], result["logit"])
            pairs.append((result["logit"], first))
    return largest_difference(pairs)


def _compare_split(
    gateways: Mapping[str, str], maker: RequestMaker, query: str, documents: int, samples: int
) -> SplitRow:
    """Requests of one shape, whole and split in turns."""
    taken: dict[str, list[float]] = {"split": [], "whole": []}
    for sample in range(samples):
        for routing in sorted(taken, reverse=sample % 2 == 1):
            taken[routing].append(_timed(gateways[routing], maker.single(query, documents)))

    prefix, suffix = maker.tokens(maker.single(query, documents))
    return SplitRow(
        query,
        documents,
        prefix_tokens=prefix,
        suffix_tokens=suffix,
        whole=statistics.median(taken["whole"]),
        split=statistics.median(taken["split"]),
        gain=_median_ratio(taken["whole"], taken["split"]),
    )


def _begins_with_document(url: str) -> bool:
    """True if the model's prompts begin with the document."""
    return bool(json.loads(get(url, "/info"))["cacheable_side"] == "document")


def _compare_streams(
    gateways: Mapping[str, str], maker: RequestMaker, letter: str, callers: int, samples: int
) -> StreamRow:
    """Streams by affinity and to the least loaded worker, in turns: pages of equal queries, or D:
    new queries over recurring documents, which affinity sends to their homes."""
    affinity = gateways["split" if letter == "D" else "whole"]
    urls = {"affinity": affinity, "least_loaded": gateways["least_loaded"]}
    request_seconds: dict[str, list[float]] = {routing: [] for routing in urls}
    stream_seconds: dict[str, list[float]] = {routing: [] for routing in urls}
    tokens_before = {routing: prompt_tokens(url) for routing, url in urls.items()}

    for sample in range(samples):
        for routing in sorted(urls, reverse=sample % 2 == 1):
            stream = maker.recurring() if letter == "D" else maker.stream(letter)
            start = time.perf_counter()
            with ThreadPoolExecutor(callers) as pool:
                request_seconds[routing] += pool.map(_timed, [urls[routing]] * len(stream), stream)
            stream_seconds[routing].append(time.perf_counter() - start)

    reused = {}
    for routing, url in urls.items():
        reused[routing] = _reused_share(tokens_before[routing], prompt_tokens(url))

    return StreamRow(
        letter,
        callers,
        affinity=statistics.median(request_seconds["affinity"]),
        least_loaded=statistics.median(request_seconds["least_loaded"]),
        gain=_median_ratio(stream_seconds["least_loaded"], stream_seconds["affinity"]),
        affinity_reused=reused["affinity"],
        least_loaded_reused=reused["least_loaded"],
    )


def _median_ratio(times: list[float], others: list[float]) -> float:
    """The median of the paired ratios."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


def _reused_share(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The share of prompt tokens that came from a worker's prefix cache."""
    total = sum(after.values()) - sum(before.values())
    return (after["prefix"] - before["prefix"]) / total
