"""`gmr bench --observability`: the cost of metrics, logs and traces for the cheapest request, whose
scores are all cached.

Starts gateways in front of one worker and calls them as any client does. Depends on their settings,
and on `service.bench.overhead.unobserved` as a gateway without observability; that one is started
twice, and the difference between the two is the measurement's error. Invariant: all variants get
the same request in turns, a ratio is of two variants in one round, and gateways are started anew
for each sample, because two processes of one program differ, too.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, cleaning_up, started
from service.bench.results import quantile, write_report
from service.bench.service import inherited_environment, is_ready, start_service
from service.bench.traffic import requests

ROUNDS = 20
REQUESTS = 25
"""Requests of a variant in one round."""
_WARM_UP = 50
_EXPORT_SECONDS = 6
"""Spans are exported every five seconds."""
_RESAMPLES = 2_000
"""Resamples of the bootstrap."""
_NO_DEADLINE = {"RERANK_DEFAULT_TIMEOUT_MS": "600000"}
"""For the first request, which is scored."""
_LOGGED = {"RERANK_LOG_LEVEL": "info"}
_BASELINE = "nothing"
_VARIANTS = {
    _BASELINE: ("service.bench.overhead.unobserved", {}),
    "nothing, again": ("service.bench.overhead.unobserved", {}),
    "metrics, logs": ("service.cli.main", _LOGGED),
    "metrics, logs, traces": ("service.cli.main", _LOGGED | {"RERANK_TRACE_SAMPLE": "0.01"}),
}
"""Gateways by their observability: the module that runs each, and its settings."""
_SENT = 'rerank_trace_spans_total{outcome="sent"}'


@dataclass(frozen=True, slots=True)
class _Gateway:
    program: Program
    url: str


@dataclass(slots=True)
class Timings:
    """The measurements of one variant: seconds by sample and round, and processor seconds of all
    rounds."""

    seconds: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0


def run_observability(plan: Plan) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    console = Console()
    timings = {name: Timings() for name in _VARIANTS}
    with cleaning_up(), TemporaryDirectory(prefix="gmr-bench-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        service = start_service(plan, checkpoint, plan.engine, scratch, stack)

        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        (request,) = requests("T", plan.documents, 1, 0, tokenizer)
        body = json.dumps(replace(request, cache="use").body()).encode()
        for sample in range(plan.samples):
            with _gateways(service.worker_url, scratch) as gateways:
                _take_sample(gateways, body, timings)
            console.print(f"sample {sample + 1} of {plan.samples}")

    rows = [cost(name, found, timings[_BASELINE]) for name, found in timings.items()]
    console.print(_table(rows, plan))
    if plan.output:
        options = {"model": plan.model, "documents": plan.documents, "samples": plan.samples}
        write_report(describe(plan) | options | {"rows": rows}, plan.output)
    return 0


def cost(name: str, timings: Timings, baseline: Timings) -> dict[str, Any]:
    """The cost of a variant: the share of requests a second that it loses to the baseline, and an
    interval that contains the share in 95 of 100 cases."""
    lost: list[list[float]] = []
    all_lost: list[float] = []
    rates: list[float] = []
    for observed, unobserved in zip(timings.seconds, baseline.seconds, strict=True):
        shares = [1 - one / other for other, one in zip(observed, unobserved, strict=True)]
        lost.append(shares)
        all_lost += shares
        rates += [REQUESTS / seconds for seconds in observed]

    low, high = median_interval(lost, Random(0))
    request_count = (REQUESTS + 1) * ROUNDS * len(timings.seconds)
    return {
        "observed": name,
        "requests_per_second": statistics.median(rates),
        "throughput_lost": statistics.median(all_lost),
        "throughput_lost_95": [low, high],
        "cpu_ms_a_request": timings.cpu / request_count * 1000,
        "seconds": timings.seconds,
    }


def median_interval(samples: Sequence[Sequence[float]], rng: Random) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median: samples are drawn with replacement, and from each
    of them its rounds."""
    medians = []
    for _ in range(_RESAMPLES):
        drawn: list[float] = []
        for rounds in rng.choices(samples, k=len(samples)):
            drawn += rng.choices(rounds, k=len(rounds))
        medians.append(statistics.median(drawn))
    return quantile(medians, 0.025), quantile(medians, 0.975)


@contextmanager
def _gateways(worker: str, scratch: Path) -> Iterator[dict[str, _Gateway]]:
    """A ready gateway for each variant, and a trace collector; raises `BenchRefused` at the end
    where no trace was sent to it."""
    with ExitStack() as stack:
        collector = calls.free_url()
        command = [sys.executable, "-m", "service.bench.overhead.sink", calls.port_of(collector)]
        sink = stack.enter_context(
            started("sink", command, inherited_environment(), scratch / "sink.log")
        )
        sink.await_ready(partial(calls.answers, collector, "/"))

        gateways: dict[str, _Gateway] = {}
        for name, (module, settings) in _VARIANTS.items():
            url = calls.free_url()
            command = [sys.executable, "-m", module, "gateway"]
            command += ["--workers", worker, "--port", calls.port_of(url)]
            environment = inherited_environment() | _NO_DEADLINE | settings
            if "RERANK_TRACE_SAMPLE" in settings:
                environment["RERANK_OTLP_ENDPOINT"] = collector
            program = stack.enter_context(
                started("gateway", command, environment, scratch / f"{name}.log")
            )
            program.await_ready(partial(is_ready, url))
            gateways[name] = _Gateway(program, url)

        yield gateways

        time.sleep(_EXPORT_SECONDS)
        if not calls.metrics(url).get(_SENT):
            raise BenchRefused(
                "No trace has left the gateway that was to send some: nothing was measured."
            )


def _take_sample(
    gateways: Mapping[str, _Gateway], body: bytes, timings: Mapping[str, Timings]
) -> None:
    """One sample: all variants are warmed up and then called in turns, and the first of a round
    changes from round to round."""
    for gateway in gateways.values():
        _seconds(gateway.url, body, _WARM_UP)

    before = {name: _cpu_seconds(gateway) for name, gateway in gateways.items()}
    rounds: dict[str, list[float]] = {name: [] for name in gateways}
    names = list(gateways)
    for number in range(ROUNDS):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            rounds[name].append(_seconds(gateways[name].url, body, REQUESTS))

    for name, gateway in gateways.items():
        timings[name].seconds.append(rounds[name])
        timings[name].cpu += _cpu_seconds(gateway) - before[name]


def _cpu_seconds(gateway: _Gateway) -> float:
    return sum(gateway.program.cpu_seconds().values())


def _seconds(url: str, body: bytes, times: int) -> float:
    """The time of a request sent `times` times in a row, over one connection that was used once
    before."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=calls.ANSWER_SECONDS)
    try:
        _send(connection, body)
        start = time.perf_counter()
        for _ in range(times):
            _send(connection, body)
        return time.perf_counter() - start
    # BrokenPipeError among them, which the command line would take for a closed terminal
    except OSError as error:
        raise calls.CallFailed(f"A gateway was lost ({type(error).__name__}).") from error
    finally:
        connection.close()


def _send(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/rerank", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != http.client.OK:
        raise calls.CallFailed(
            f"/rerank answered {answer.status}: {content[:500].decode(errors='replace')}"
        )


def _table(rows: Sequence[Mapping[str, Any]], plan: Plan) -> Table:
    table = Table(title=f"{plan.documents} texts a request, all of them known; one caller")
    for heading in ("observed", "requests/s", "throughput lost", "95 %", "CPU ms a request"):
        table.add_column(heading, justify="right")

    for row in rows:
        low, high = row["throughput_lost_95"]
        table.add_row(
            row["observed"],
            f"{row['requests_per_second']:.1f}",
            f"{row['throughput_lost']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{row['cpu_ms_a_request']:.2f}",
        )
    return table
