"""`gmr bench --faults`: what callers notice when a part of the service fails, and what that costs
in work.

Knows faults and what callers record, not how the service deals with them. Invariant: a fault begins
when a quarter of its row's requests are answered and ends when three quarters are; rows are
compared with the calm row of the same run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from model_store.families.tokens import LiteralTokenizer
from service.bench import calls
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.report import AGREEMENT, quantile, write
from service.bench.machine import describe
from service.bench.plan import Plan
from service.bench.programs import cleaning_up
from service.bench.reliability.load import (
    TURNED_AWAY,
    Asked,
    Traffic,
    closed_loop,
    open_loop,
    succeeded,
    wrong,
)
from service.bench.reliability.system import System, system

CALLERS = 4
REQUESTS_A_SAMPLE = 60
"""Requests of a row are so many for each sample that the command line asks for."""
CHECKED = 40
"""Answers of a row that are compared with what a calm service says."""
OVERLOAD, OVERLOAD_SECONDS = 10, 10
SLOWNESS, _PERIOD_SECONDS = 10, 0.2
_CALLS = "rerank_worker_calls_total"
_LIES = (
    "local k=redis.call('KEYS','*') local v={} for i,x in ipairs(k) do v[i]=redis.call('GET',x) end"
    " for i,x in ipairs(k) do redis.call('SET',x,v[i%#k+1]) end return #k"
)
"""Gives every key its neighbour's value."""

Fault = Callable[[System], Callable[[], None]]
"""Does the harm; what it gives undoes it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What callers saw. `failed`: no scores, nor turned away politely; `extra_work`: calls to
    workers that came to nothing."""

    fault: str
    requests: int
    failed: int
    turned_away: int
    wrong: int
    p50_ms: float
    p99_ms: float
    p99_ratio: float
    extra_work: float


def run_faults(plan: Plan) -> int:
    """Measure, print and write; the exit code is 1 where a score was wrong. Raises as `run_bench`
    does."""
    console = Console()
    with cleaning_up(), TemporaryDirectory(prefix="gmr-bench-") as scratch:
        checkpoint = make_checkpoint(plan, Path(scratch))
        tokenizer = LiteralTokenizer.load(checkpoint.folder)
        with system(plan, checkpoint) as whole:
            closed_loop(
                whole.gateway.url,
                Traffic(tokenizer, plan.documents, 0),
                CALLERS,
                REQUESTS_A_SAMPLE,
                _ignore,
            )
            rows: list[Row] = []
            for number, (name, fault) in enumerate(FAULTS.items(), start=1):
                traffic = Traffic(tokenizer, plan.documents, number)
                rows.append(
                    _row(name, whole, traffic, plan, fault, rows[0].p99_ms if rows else None)
                )
                console.print(f"{name}: {rows[-1].failed} of {rows[-1].requests} failed")
            overload = _overload(whole, Traffic(tokenizer, plan.documents, len(FAULTS) + 1))
    console.print(_table(rows))
    console.print(_sentence(overload), soft_wrap=True)
    report = describe(plan) | {
        "model": plan.model,
        "engine": plan.engine,
        "documents": plan.documents,
        "callers": CALLERS,
    }
    report |= {"rows": [asdict(row) for row in rows], "overload": overload}
    if plan.output:
        write(report, plan.output)
    return int(any(row.wrong for row in rows))


def _row(
    name: str, whole: System, traffic: Traffic, plan: Plan, fault: Fault, calm_p99: float | None
) -> Row:
    count = REQUESTS_A_SAMPLE * plan.samples
    before, undo = _calls(whole), _ignore_nothing
    state = "before"

    def watch(done: int) -> None:
        nonlocal undo, state
        if state == "before" and done >= count // 4:
            undo, state = fault(whole), "harmed"
        elif state == "harmed" and done >= 3 * count // 4:
            state = "mended"
            undo()

    asked = closed_loop(whole.gateway.url, traffic, CALLERS, count, watch)
    after = _calls(whole)
    whole.await_ready()
    taken = [each.seconds * 1000 for each in asked]
    polite = sum(each.status in TURNED_AWAY and each.retry_after for each in asked)
    p99 = quantile(taken, 0.99)
    return Row(
        fault=name,
        requests=count,
        failed=count - len(succeeded(asked)) - polite,
        turned_away=polite,
        wrong=wrong(whole.gateway.url, asked, CHECKED, AGREEMENT[plan.dtype]),
        p50_ms=quantile(taken, 0.5),
        p99_ms=p99,
        p99_ratio=p99 / (calm_p99 or p99),
        extra_work=(after["all"] - before["all"]) / max(1.0, after["ok"] - before["ok"]) - 1,
    )


def _overload(whole: System, traffic: Traffic) -> dict[str, float]:
    """Capacity by a closed loop that keeps every worker busy; then requests at ten times that rate,
    whatever becomes of them."""
    url, count = whole.gateway.url, REQUESTS_A_SAMPLE
    start = time.perf_counter()
    closed_loop(url, traffic, 2 * CALLERS, count, _ignore)
    capacity = count / (time.perf_counter() - start)
    start = time.perf_counter()
    asked = open_loop(url, traffic, OVERLOAD * capacity, OVERLOAD_SECONDS)
    seconds = time.perf_counter() - start
    served, refused = succeeded(asked), [each for each in asked if each.status in TURNED_AWAY]
    start = time.perf_counter()
    closed_loop(url, traffic, 2 * CALLERS, count, _ignore)
    return {
        "requests": len(asked),
        "served": len(served),
        "turned_away": len(refused),
        "failed": len(asked) - len(served) - len(refused),
        "goodput": len(served) / seconds / capacity,
        "p99_ms": _p99(served),
        "turned_away_p50_ms": quantile([each.seconds * 1000 for each in refused] or [0.0], 0.5),
        "turned_away_p99_ms": _p99(refused),
        "recovered": count / (time.perf_counter() - start) / capacity,
    }


def _p99(asked: Sequence[Asked]) -> float:
    return quantile([each.seconds * 1000 for each in asked] or [0.0], 0.99)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        title=(
            f"{CALLERS} callers, {REQUESTS_A_SAMPLE} requests a sample; a gateway, two workers, a"
            " Redis"
        )
    )
    for heading in (
        "fault",
        "requests",
        "failed",
        "turned away",
        "wrong scores",
        "p50 ms",
        "p99 ms",
        "p99 / calm",
        "extra work",
    ):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for row in rows:
        counts = (str(each) for each in (row.requests, row.failed, row.turned_away, row.wrong))
        times = (
            f"{row.p50_ms:.0f}",
            f"{row.p99_ms:.0f}",
            f"{row.p99_ratio:.2f}x",
            f"{row.extra_work:.1%}",
        )
        table.add_row(row.fault, *counts, *times)
    return table


def _sentence(overload: dict[str, float]) -> str:
    served = f"{overload['served']:.0f} of {overload['requests']:.0f} requests were served"
    goodput = f"{overload['goodput']:.0%} of the capacity; p99 {overload['p99_ms']:.0f} ms"
    away = (
        f"p50 {overload['turned_away_p50_ms']:.0f} ms, p99 {overload['turned_away_p99_ms']:.0f} ms"
    )
    return (
        f"At {OVERLOAD} times the capacity, {served} ({goodput}), {overload['turned_away']:.0f}"
        f" turned away ({away}), {overload['failed']:.0f} failed; afterwards,"
        f" {overload['recovered']:.0%} of the capacity."
    )


def _calls(whole: System) -> dict[str, float]:
    counted = {
        name: value
        for name, value in calls.numbers(whole.gateway.url).items()
        if name.startswith(_CALLS)
    }
    return {"all": sum(counted.values()), "ok": counted.get(f'{_CALLS}{{outcome="ok"}}', 0.0)}


def _ignore(_done: int) -> None:
    """Nothing happens at any number of requests."""


def _ignore_nothing() -> None:
    """Nothing has to be undone."""


def _calm(_whole: System) -> Callable[[], None]:
    return _ignore_nothing


def _kill_worker(whole: System) -> Callable[[], None]:
    whole.workers[0].kill()
    return whole.workers[0].restart


def _stop_worker(whole: System) -> Callable[[], None]:
    whole.workers[0].program.pause()
    return whole.workers[0].program.resume


def _slow_worker(whole: System) -> Callable[[], None]:
    over = threading.Event()
    limping = threading.Thread(target=_limp, args=(whole, over))
    limping.start()

    def undo() -> None:
        over.set()
        limping.join()

    return undo


def _limp(whole: System, over: threading.Event) -> None:
    program = whole.workers[0].program
    while not over.is_set():
        program.pause()
        over.wait(_PERIOD_SECONDS * (1 - 1 / SLOWNESS))
        program.resume()
        time.sleep(_PERIOD_SECONDS / SLOWNESS)


def _kill_redis(whole: System) -> Callable[[], None]:
    whole.redis.kill()
    return whole.redis.restart


def _stop_redis(whole: System) -> Callable[[], None]:
    whole.redis.program.pause()
    return whole.redis.program.resume


def _fill_redis(whole: System) -> Callable[[], None]:
    whole.redis_says("CONFIG", "SET", "maxmemory", "1mb")
    return lambda: (whole.redis_says("CONFIG", "SET", "maxmemory", "0"), None)[1]


def _lying_redis(whole: System) -> Callable[[], None]:
    whole.redis_says("EVAL", _LIES, "0")
    return _ignore_nothing


FAULTS: dict[str, Fault] = {
    "none": _calm,
    "a worker is killed": _kill_worker,
    "a worker hangs": _stop_worker,
    f"a worker is {SLOWNESS} times slower": _slow_worker,
    "Redis is killed": _kill_redis,
    "Redis hangs": _stop_redis,
    "Redis is full": _fill_redis,
    "Redis gives other pairs' values": _lying_redis,
}
