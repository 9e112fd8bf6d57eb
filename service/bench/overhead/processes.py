"""`gmr bench --processes N`: cached requests a second of a gateway of one process, and of one of N.

Depends on the public API. Invariant: both gateways are asked in turns, the other one paused, by as
many connections; every counted answer has its scores from the cache.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.calls import CallFailed
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import Program, cleaning_up, started
from service.bench.results import write_report
from service.bench.service import DECODERS, gmr, is_ready, service_environment, start_service
from service.bench.traffic import WARM_UP, requests

SECONDS = 5.0
"""Time for which a gateway is asked in a sample."""
CONNECTIONS_A_PROCESS = 8
_READ_BYTES = 1 << 18
_COMPUTED = 'result="computed"'


def run_processes(plan: Plan, processes: int) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    samples: list[dict[str, float]] = []
    with (
        cleaning_up(),
        tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder,
        ExitStack() as stack,
    ):
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        one = start_service(plan, checkpoint, plan.engine, scratch, stack)
        url = calls.free_url()
        several = stack.enter_context(
            started(
                "gateways",
                [
                    *gmr(sys.executable, "gateway", "--workers", one.worker_url, url=url),
                    f"--processes={processes}",
                ],
                service_environment(plan, checkpoint, plan.engine),
                scratch / "gateways.log",
                children=DECODERS,
            )
        )
        several.await_ready(lambda: is_ready(url))

        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        (request,) = requests("T", plan.documents, 1, 0, tokenizer)
        body = json.dumps(request.body() | {"cache": "use"}).encode()
        connections = CONNECTIONS_A_PROCESS * processes
        for number in range(WARM_UP, plan.samples):
            alone = _ask(one.gateway, one.url, body, connections, beside=several)
            together = _ask(several, url, body, connections, beside=one.gateway)
            if number != WARM_UP:
                samples.append(
                    {"one": alone[0], "one_cpu_ms": alone[1]}
                    | {"several": together[0], "several_cpu_ms": together[1]}
                )

    report = {
        **describe(plan),
        "documents": plan.documents,
        "processes": processes,
        "connections": connections,
        "ratio": statistics.median(each["several"] / each["one"] for each in samples),
        "samples": samples,
    }
    Console().print(_sentence(report), soft_wrap=True)
    if plan.output:
        write_report(report, plan.output)
    return 0


def _ask(
    gateway: Program, url: str, body: bytes, connections: int, *, beside: Program
) -> tuple[float, float]:
    """Requests a second, and milliseconds of a processor for each; raises `CallFailed` where a
    score was computed after the first second."""
    beside.pause()
    try:
        for _ in range(connections):  # one at a time, until each process has the scores
            _send(url, body, 1, 0.05)
        _send(url, body, connections, 1.0)
        computed, used = _computed(url), sum(gateway.cpu_seconds().values())
        rate, count = _send(url, body, connections, SECONDS)
        used = sum(gateway.cpu_seconds().values()) - used
        if _computed(url) != computed:
            raise CallFailed("Scores were computed that should have been cached.")
    finally:
        beside.resume()
    return rate, used * 1000 / count


def _computed(url: str) -> float:
    """The pairs that were computed so far, by all processes."""
    found = calls.metrics(url).items()
    return sum(value for name, value in found if "pairs_total" in name and _COMPUTED in name)


def _send(url: str, body: bytes, connections: int, seconds: float) -> tuple[float, int]:
    """Requests a second over kept connections, and their number.

    The bytes of a request are made once, and an answer is not parsed: a client that leaves the
    processors to the gateway.
    """
    host, port = urlsplit(url).hostname, urlsplit(url).port
    head = f"POST /rerank HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    message = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    counts = [0] * connections
    start = time.monotonic()

    def talk(number: int) -> None:
        with socket.create_connection((host, port), timeout=calls.ANSWER_SECONDS) as connection:
            while time.monotonic() < start + seconds:
                connection.sendall(message)
                if not _answered(connection):
                    return
                counts[number] += 1

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(counts):
        raise CallFailed(f"{url} refused a cached request.")
    return sum(counts) / (time.monotonic() - start), sum(counts)


def _answered(connection: socket.socket) -> bool:
    """Read one answer; returns whether it is a success."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(_READ_BYTES)
        if not received:
            return False
        data += received

    head, _, begun = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    left = length - len(begun)
    while left > 0:
        received = connection.recv(_READ_BYTES)
        if not received:
            return False
        left -= len(received)
    return head.startswith(b"HTTP/1.1 200 ")


def _sentence(report: dict[str, Any]) -> str:
    medians = {
        name: statistics.median(sample[name] for sample in report["samples"])
        for name in report["samples"][0]
    }
    return (
        f"{report['processes']} processes answer {medians['several']:.0f} requests/s with"
        f" {report['documents']} cached texts ({medians['several_cpu_ms']:.2f} ms of a processor"
        f" each), one {medians['one']:.0f} ({medians['one_cpu_ms']:.2f} ms): {report['ratio']:.2f}"
        " times as many (median of paired ratios)."
    )
