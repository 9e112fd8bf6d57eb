"""`gmr bench`: `/rerank` over HTTP against the naive loop, on the same checkpoint and pairs, in turns.

Starts both as processes of their own and talks to them as any client would. Knows nothing of how either works. Invariant: every
ratio comes from samples taken in turns in one run, and both sides' scores must agree.
"""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model_store.evaluation.generated import generate_checkpoint
from model_store.evaluation.workloads import DESCRIPTIONS, make_request
from model_store.families.tokens import LiteralTokenizer
from model_store.registry import resolve

AGREEMENT = 1e-3
"""How far the two sides' logits may differ; more, and the timing is void."""
_START_SECONDS = 120


@dataclass(slots=True)
class Row:
    """One workload's samples, in seconds, taken in turns."""

    workload: str
    service: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)
    frugal: list[float] = field(default_factory=list)
    offs: list[float] = field(default_factory=list)

    @property
    def disagreement(self) -> float:
        """The largest difference of two logits of one pair; infinite where one is not a number."""
        return max((off if math.isfinite(off) else math.inf for off in self.offs), default=0.0)

    def ratio(self, other: Sequence[float]) -> float:
        """Median over the pairs of (other / service)."""
        return statistics.median(slow / quick for slow, quick in zip(other, self.service, strict=True))


def run_bench(model: str, workloads: Sequence[str], samples: int, documents: int, output: Path | None) -> int:
    """Run, print a table, write JSON; gives the exit code: 1 where scores disagree."""
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _checkpoint(model, Path(scratch))
        threads = len(os.sched_getaffinity(0))
        tokenizer = LiteralTokenizer.load(folder)
        rows = [Row(letter) for letter in workloads]
        with _service(folder, threads) as url, _naive(folder, threads) as naive:
            for row in rows:
                for sample in range(-1, samples):  # the first is warm-up
                    _take(row, url, naive, tokenizer, documents, sample)
                console.print(f"{row.workload}: {DESCRIPTIONS[row.workload]}: {row.ratio(row.naive):.1f}x the naive loop")
    console.print(_table(rows, documents))
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "model": model,
        "documents": documents,
        "samples": samples,
        "threads": threads,
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("gmr-rerank", "torch", "transformers")},
        "rows": [_summary(row) for row in rows],
    }
    if output:
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    disagree = [row.workload for row in rows if not row.disagreement <= AGREEMENT]
    if disagree:
        console.print(f"[red]The scores of {', '.join(disagree)} do not agree: these timings are void.[/red]")
    return 1 if disagree else 0


def _take(row: Row, url: str, naive: subprocess.Popen[str], tokenizer: LiteralTokenizer, documents: int, sample: int) -> None:
    """One sample of each side, over the same request; a warm-up (a negative sample) is not kept."""
    body = json.dumps(make_request(row.workload, documents, sample, tokenizer).body()).encode()
    start = time.perf_counter()
    answer = _post(f"{url}/rerank", body)
    service = time.perf_counter() - start
    asked = {"workload": row.workload, "documents": documents if sample >= 0 else min(documents, 3), "seed": sample}
    looped = _ask(naive, asked | {"frugal": False})
    frugal = _ask(naive, asked | {"frugal": True})
    if sample < 0:
        return
    row.service.append(service)
    row.naive.append(looped["seconds"])
    row.frugal.append(frugal["seconds"])
    logits = {result["index"]: result["logit"] for result in answer["results"]}
    row.offs += [abs(logits[index] - logit) for index, logit in enumerate(looped["logits"])]


def _summary(row: Row) -> dict[str, Any]:
    return {
        "workload": row.workload,
        "service": row.service,
        "naive": row.naive,
        "frugal": row.frugal,
        "ratio": row.ratio(row.naive),
        "ratio_frugal": row.ratio(row.frugal),
        "disagreement": row.disagreement,
    }


def _table(rows: Sequence[Row], documents: int) -> Table:
    table = Table(title=f"{documents} documents a request; median milliseconds; ratios are medians of paired samples")
    for heading in ("workload", "/rerank", "naive loop", "ratio", "last position only", "ratio", "largest logit difference"):
        table.add_column(heading, justify="right")
    for row in rows:
        service, naive, frugal = (f"{statistics.median(taken) * 1000:.0f}" for taken in (row.service, row.naive, row.frugal))
        ratios = (f"{row.ratio(row.naive):.1f}x", f"{row.ratio(row.frugal):.1f}x")
        table.add_row(row.workload, service, naive, ratios[0], frugal, ratios[1], f"{row.disagreement:.1e}")
    return table


def _checkpoint(model: str, scratch: Path) -> Path:
    if model != "generated":
        return resolve(model).folder
    generate_checkpoint(resolve("gmr-tiny").folder, scratch / "generated")
    return scratch / "generated"


@contextmanager
def _service(folder: Path, threads: int) -> Iterator[str]:
    """`gmr serve` on a free port, until the context ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--model", str(folder)]
    environment = os.environ | {"RERANK_THREADS": str(threads), "RERANK_LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(f"{url}/health/ready", process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(_START_SECONDS * 5):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the service did not become ready")


@contextmanager
def _naive(folder: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "model_store.evaluation.naive", str(folder), str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def _ask(process: subprocess.Popen[str], asked: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the naive loop has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _post(url: str, body: bytes) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as response:
        answer: dict[str, Any] = json.loads(response.read())
        return answer
