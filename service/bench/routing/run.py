"""What it is worth to split a request over workers, and to send equal queries to one worker: two
real workers, measured in turns.

Starts workers and gateways as processes of their own and talks to them as any client would. Knows
no routing rule: each gateway is told which to follow. Invariant: the ways that are compared are
sent requests of equal shape in one run, never the same one twice, so that none profits from what
another left in a cache; and they must agree on the scores of one common request.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import count, cycle
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from model_store.checkpoint import resolve
from model_store.families.tokens import LiteralTokenizer
from service.bench.calls import answers, free_url, get, numbers, port_of, post
from service.bench.plan import Plan
from service.bench.programs import Program, started
from service.bench.routing.report import WORKERS, SplitRow, StreamRow, split_table, stream_table
from service.bench.starting import inherited
from service.bench.workloads import make_request

AGREEMENT = 1e-3
"""How far the logits of two ways may differ; more, and the timing is void."""
QUERIES = {"short": 0, "middle": 2, "long": 8}
"""Query sides: the first words of a text, or as many texts of 130 tokens."""
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512)
PAGE, PAGES, STREAM_QUERIES = 10, 4, 6
"""A stream: for each query, pages of documents, shuffled."""
CALLERS = (1, 4)
_WAYS = {
    "whole": {"RERANK_SPLIT": "never"},
    "split": {"RERANK_SPLIT": "always"},
    "least_loaded": {"RERANK_SPLIT": "never", "RERANK_ROUTING": "least_loaded"},
}

_SOURCES = ("computed", "prefix", "cached")
Body = dict[str, Any]


def run_routing(plan: Plan) -> int:
    """Run, print two tables, write JSON; gives the exit code: 1 where the ways disagree on
    scores."""
    console, folder, samples = Console(), resolve(plan.model).folder, plan.samples
    requests = _Requests(LiteralTokenizer.load(folder))
    with _ways(folder, plan) as ways:
        off = _disagreement(ways, requests)
        versions = json.loads(get(ways["whole"], "/info"))["versions"]
        splits = [
            _compare_split(ways, requests, query, size, samples)
            for query in QUERIES
            for size in sorted({min(size, plan.documents) for size in SIZES})
        ]
        streams = [
            _compare_streams(ways, requests, letter, callers, samples)
            for letter in "TQ"
            for callers in CALLERS
        ]
    console.print(split_table(splits))
    console.print(stream_table(streams))
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "model": plan.model,
        "engine": plan.engine,
        "workers": WORKERS,
        "samples": samples,
        "disagreement": off,
        "versions": versions,
        "split": [
            asdict(row) | {"share_per_prefix": row.share_per_prefix, "expected": row.expected}
            for row in splits
        ],
        "streams": [asdict(row) for row in streams],
    }
    if plan.output:
        plan.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not off <= AGREEMENT:
        console.print("[red]The ways do not agree on scores: these timings are void.[/red]")
    return int(not off <= AGREEMENT)


class _Requests:
    """Requests that were never sent before."""

    def __init__(self, tokenizer: LiteralTokenizer) -> None:
        self._tokenizer = tokenizer
        self._seed = count()

    def split(self, query: str, documents: int) -> Body:
        texts = QUERIES[query]
        body = make_request("T", texts + documents, next(self._seed), self._tokenizer).body()
        asked = " ".join(body["documents"][:texts]) or " ".join(body["query"].split()[:12])
        return body | {"query": asked, "documents": body["documents"][texts:]}

    def pages(self, letter: str) -> list[Body]:
        """A stream: the pages of several queries, shuffled."""
        stream = []
        for _ in range(STREAM_QUERIES):
            body = make_request(letter, PAGE * PAGES, next(self._seed), self._tokenizer).body()
            stream += [
                body | {"documents": body["documents"][page * PAGE :][:PAGE]}
                for page in range(PAGES)
            ]
        Random(next(self._seed)).shuffle(stream)
        return stream

    def tokens(self, body: Body) -> tuple[int, int]:
        """(prefix, suffix) tokens of a request of texts, without the template."""
        lengths = [
            len(ids)
            for ids in self._tokenizer.encode(
                [body["instruction"], body["query"], *body["documents"]]
            )
        ]
        return sum(lengths[:2]), sum(lengths[2:])


@contextmanager
def _ways(folder: Path, plan: Plan) -> Iterator[dict[str, str]]:
    """The URL of a gateway for each way, all over the same workers of one thread each (vLLM would
    put all on one core)."""
    quiet = inherited() | {"RERANK_LOG_LEVEL": "warning"}
    alone = quiet | {
        "RERANK_MODEL": str(folder),
        "RERANK_ENGINE": plan.engine,
        "RERANK_THREADS": "1",
    }
    with ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))

        def run(
            name: str, python: str, command: str, settings: dict[str, str]
        ) -> tuple[Program, str]:
            url = free_url()
            line = [python, "-m", "service.cli", command, "--port", port_of(url)]
            return stack.enter_context(started(name, line, settings, logs / name)), url

        cores = cycle(sorted(os.sched_getaffinity(0)))
        bound = (alone | {"VLLM_CPU_OMP_THREADS_BIND": str(core)} for core in cores)
        python = plan.python_vllm if plan.engine == "vllm" else sys.executable
        workers = [
            run(f"worker-{number}", python, "worker", next(bound)) for number in range(WORKERS)
        ]
        shared = quiet | {"RERANK_WORKERS": ",".join(url for _, url in workers)}
        gateways = [
            run(name, sys.executable, "gateway", shared | way) for name, way in _WAYS.items()
        ]
        for program, url in workers + gateways:
            program.await_ready(partial(answers, url, "/health/ready"))
        yield {name: url for name, (_, url) in zip(_WAYS, gateways, strict=True)}


def _timed(url: str, body: Body) -> float:
    sent = json.dumps(body).encode()
    start = time.perf_counter()
    post(url, "/rerank", sent)
    return time.perf_counter() - start


def _disagreement(ways: dict[str, str], requests: _Requests) -> float:
    """Warm every way up with one common request; gives the largest difference of a pair's
    logits."""
    body = json.dumps(requests.split("short", 16)).encode()
    results = [json.loads(post(url, "/rerank", body))["results"] for url in ways.values()]
    logits = [{result["index"]: result["logit"] for result in each} for each in results]
    offs = [abs(logit - logits[0][index]) for each in logits for index, logit in each.items()]
    return max(off if math.isfinite(off) else math.inf for off in offs)


def _compare_split(
    ways: dict[str, str], requests: _Requests, query: str, documents: int, samples: int
) -> SplitRow:
    taken: dict[str, list[float]] = {"split": [], "whole": []}
    for sample in range(samples):
        for way in sorted(taken, reverse=sample % 2 == 1):
            taken[way].append(_timed(ways[way], requests.split(query, documents)))
    prefix, suffix = requests.tokens(requests.split(query, documents))
    median = statistics.median
    gain = median(
        whole / split for whole, split in zip(taken["whole"], taken["split"], strict=True)
    )
    return SplitRow(
        query, documents, prefix, suffix, median(taken["whole"]), median(taken["split"]), gain
    )


def _compare_streams(
    ways: dict[str, str], requests: _Requests, letter: str, callers: int, samples: int
) -> StreamRow:
    urls = {"affinity": ways["whole"], "least_loaded": ways["least_loaded"]}
    each: dict[str, list[float]] = {way: [] for way in urls}
    whole: dict[str, list[float]] = {way: [] for way in urls}
    reused = {way: _tokens(url) for way, url in urls.items()}
    for sample in range(samples):
        for way in sorted(urls, reverse=sample % 2 == 1):
            stream, start = requests.pages(letter), time.perf_counter()
            with ThreadPoolExecutor(callers) as pool:
                each[way] += pool.map(_timed, [urls[way]] * len(stream), stream)
            whole[way].append(time.perf_counter() - start)
    shares = {way: _reused(reused[way], _tokens(url)) for way, url in urls.items()}
    gain = statistics.median(
        other / own for other, own in zip(whole["least_loaded"], whole["affinity"], strict=True)
    )
    own, other = (statistics.median(each[way]) for way in ("affinity", "least_loaded"))
    return StreamRow(letter, callers, own, other, gain, shares["affinity"], shares["least_loaded"])


def _tokens(url: str) -> dict[str, float]:
    """Prompt tokens that a gateway has counted so far, by where their scores came from."""
    counted = numbers(url)
    return {
        source: counted.get(f'rerank_prompt_tokens_total{{source="{source}"}}', 0.0)
        for source in _SOURCES
    }


def _reused(before: dict[str, float], after: dict[str, float]) -> float:
    """The share of prompt tokens that came from a worker's prefix cache."""
    return (after["prefix"] - before["prefix"]) / (sum(after.values()) - sum(before.values()))
