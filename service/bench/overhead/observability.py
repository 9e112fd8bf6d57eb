"""`gmr bench --observability`: what metrics, logs and traces cost, where a request costs least: all
its scores are known.

Starts gateways before one worker and talks to them as any client would. Knows their settings, and
that `service.bench.overhead.unobserved` is a gateway that observes nothing; that one is started
twice, and what the two differ by is what the measurement is worth. Invariant: the ways are asked
the same request in turns; a ratio is of two ways in one round; and gateways are started anew for
each sample, because two processes of one program differ, too.
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
from itertools import chain
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
from service.bench.comparison.report import quantile, write
from service.bench.machine import describe
from service.bench.plan import BenchRefused, Plan
from service.bench.programs import Program, cleaning_up, started
from service.bench.starting import inherited, start_service
from service.bench.traffic import requests

_ROUNDS = 20
_ASKED = 25
"""Requests that a way is asked in one round."""
_WARM_UP = 50
_SENDING_SECONDS = 6
"""Spans are sent every five seconds."""
_DRAWN = 2_000
"""Resamples of the bootstrap."""
_PATIENT = {"RERANK_DEFAULT_TIMEOUT_MS": "600000"}
"""The first request is scored, which may take long."""
_SEEN = {"RERANK_LOG_LEVEL": "info"}
_WAYS = {
    "nothing": ("service.bench.overhead.unobserved", {}),
    "nothing, again": ("service.bench.overhead.unobserved", {}),
    "metrics, logs": ("service.cli.main", _SEEN),
    "metrics, logs, traces": ("service.cli.main", _SEEN | {"RERANK_TRACE_SAMPLE": "0.01"}),
}
"""What is observed: the module that does so, and settings. The first is what others are compared
with."""
_SENT = 'rerank_trace_spans_total{outcome="sent"}'


@dataclass(frozen=True, slots=True)
class _Gateway:
    program: Program
    url: str


@dataclass(slots=True)
class _Found:
    """Of one way: seconds by sample and round, and processor seconds of all rounds."""

    seconds: list[list[float]] = field(default_factory=list)
    cpu: float = 0.0


def run_observability(plan: Plan) -> int:
    """Measure, print and write; the exit code is always 0. Raises as `run_bench` does."""
    console, found = Console(), {name: _Found() for name in _WAYS}
    with cleaning_up(), TemporaryDirectory(prefix="gmr-bench-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        checkpoint = make_checkpoint(plan, scratch)
        service = start_service(plan, checkpoint, plan.engine, scratch, stack)
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        body = json.dumps(
            replace(requests("T", plan.documents, 1, 0, tokenizer)[0], cache="use").body()
        ).encode()
        for sample in range(plan.samples):
            with _gateways(service.worker_url, scratch) as gateways:
                _measure(gateways, body, found)
            console.print(f"sample {sample + 1} of {plan.samples}")
    rows = [_row(name, each, found["nothing"]) for name, each in found.items()]
    console.print(_table(rows, plan))
    if plan.output:
        asked = {"model": plan.model, "documents": plan.documents, "samples": plan.samples}
        write(describe(plan) | asked | {"rows": rows}, plan.output)
    return 0


@contextmanager
def _gateways(worker: str, scratch: Path) -> Iterator[dict[str, _Gateway]]:
    """A gateway for each way, ready, and a place where traces go; at the end some must have come
    there."""
    with ExitStack() as stack:
        sink = calls.free_url()
        command = [sys.executable, "-m", "service.bench.overhead.sink", calls.port_of(sink)]
        program = stack.enter_context(started("sink", command, inherited(), scratch / "sink.log"))
        program.await_ready(partial(calls.answers, sink, "/"))
        gateways = {}
        for name, (module, settings) in _WAYS.items():
            url = calls.free_url()
            traced = {"RERANK_OTLP_ENDPOINT": sink} if "RERANK_TRACE_SAMPLE" in settings else {}
            command = [
                sys.executable,
                "-m",
                module,
                "gateway",
                "--workers",
                worker,
                "--port",
                calls.port_of(url),
            ]
            program = stack.enter_context(
                started(
                    "gateway",
                    command,
                    inherited() | _PATIENT | settings | traced,
                    scratch / f"{name}.log",
                )
            )
            program.await_ready(partial(calls.answers, url, "/health/ready"))
            gateways[name] = _Gateway(program, url)
        yield gateways
        time.sleep(_SENDING_SECONDS)
        if not calls.numbers(url).get(_SENT):
            raise BenchRefused(
                "No trace has left the gateway that was to send some: nothing was measured."
            )


def _measure(gateways: Mapping[str, _Gateway], body: bytes, found: Mapping[str, _Found]) -> None:
    """One sample: every way is warmed up, then asked in turns; who is first changes from round to
    round."""
    taken: dict[str, list[float]] = {name: [] for name in gateways}
    for gateway in gateways.values():
        _seconds(gateway.url, body, _WARM_UP)
    before = {
        name: sum(gateway.program.cpu_seconds().values()) for name, gateway in gateways.items()
    }
    names = list(gateways)
    for number in range(_ROUNDS):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            taken[name].append(_seconds(gateways[name].url, body, _ASKED))
    for name, gateway in gateways.items():
        found[name].seconds.append(taken[name])
        found[name].cpu += sum(gateway.program.cpu_seconds().values()) - before[name]


def _seconds(url: str, body: bytes, times: int) -> float:
    """How long a request takes so many times in a row, over one connection that was used once
    before."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=calls.ANSWER_SECONDS)
    try:
        _ask(connection, body)
        start = time.perf_counter()
        for _ in range(times):
            _ask(connection, body)
        return time.perf_counter() - start
    # among them a broken pipe, of which the command line would say nothing
    except OSError as error:
        raise calls.CallFailed(f"A gateway was lost ({type(error).__name__}).") from error
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/rerank", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != http.client.OK:
        raise calls.CallFailed(
            f"/rerank answered {answer.status}: {content[:500].decode(errors='replace')}"
        )


def _row(name: str, found: _Found, reference: _Found) -> dict[str, Any]:
    """What a way costs: the share of requests a second that is lost to it, and an interval that has
    it in 95 of 100 cases."""
    lost = [
        [1 - without / seen for seen, without in zip(*rounds, strict=True)]
        for rounds in zip(found.seconds, reference.seconds, strict=True)
    ]
    asked = (_ASKED + 1) * _ROUNDS * len(found.seconds)
    low, high = _interval(lost, Random(0))
    return {
        "observed": name,
        "requests_per_second": statistics.median(
            _ASKED / seconds for rounds in found.seconds for seconds in rounds
        ),
        "throughput_lost": statistics.median(chain.from_iterable(lost)),
        "throughput_lost_95": [low, high],
        "cpu_ms_a_request": found.cpu / asked * 1000,
        "seconds": found.seconds,
    }


def _interval(samples: Sequence[Sequence[float]], rng: Random) -> tuple[float, float]:
    """The bootstrap's interval of the median: samples are drawn again, and of each its rounds."""
    medians = []
    for _ in range(_DRAWN):
        drawn = [
            rng.choices(rounds, k=len(rounds)) for rounds in rng.choices(samples, k=len(samples))
        ]
        medians.append(statistics.median(chain.from_iterable(drawn)))
    return quantile(medians, 0.025), quantile(medians, 0.975)


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
