"""The stop rules of `gmr bench --gpu`: the sentence that each step states, and the judgement of its
figures.

Depends on the reports of `gmr bench`, on no GPU. Invariant: a rule skips steps by name alone, and
a comparison with an earlier step says that it is one of two runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Report = Mapping[str, Any]
ALL = "all"
"""In the place of a step's name: every step after this one."""
_REACHED_SMALL, _REACHED_LARGE = 0.78, 0.85
"""Shares of the rate of matrix products that T is to reach on 3B and on 7B."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a step's figures in words, and the steps that it skips."""

    text: str
    skips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A stop rule: its sentence, its judgement from the step's report and the earlier steps'
    reports by name, and the steps that a failure of this one skips."""

    text: str
    judge: Callable[[Report, Mapping[str, Report]], Verdict]
    needed_by: tuple[str, ...] = ()


def speed(report: Report, workload: str, contender: str = "ours", callers: int = 1) -> float | None:
    """Pairs a second of a row; None where the report lacks it."""
    row = _row(report, workload=workload, contender=contender, callers=callers)
    return None if row is None else float(row["pairs_per_second"])


def _row(report: Report, **wanted: Any) -> Mapping[str, Any] | None:
    for row in report.get("rows", ()):
        if all(row.get(name) == value for name, value in wanted.items()):
            return dict(row)
    return None


def _matmul(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    rates = report["tflops"]
    shown = []
    for model, by_rows in rates.items():
        for rows, rate in by_rows.items():
            shown.append(f"{model} at {rows} rows {rate:.4g}")
    return Verdict(f"TFLOP/s: {', '.join(shown)}")


def _worker(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    row = _row(report, workload="T", contender="ours")
    if row is None:
        return Verdict("no figure of T")
    share = row["share_of_matmul"]
    text = f"{share:.0%} of the rate of matrix products on T; {_speeds(report, 'T', 'C')}"
    if share >= _REACHED_SMALL:
        return Verdict(f"{text}; async and two-workers are skipped", ("async", "two-workers"))
    return Verdict(text)


def _against_worker(report: Report, earlier: Mapping[str, Report], least: float) -> Verdict:
    """Pairs a second against those of the step `worker`."""
    shown = [_speeds(report, "T", "C")]
    gains = {}
    for workload in ("T", "C"):
        one, other = speed(report, workload), speed(earlier.get("worker", {}), workload)
        if one and other:
            gains[workload] = one / other
            shown.append(f"{workload} {one / other:.2f}x of step worker, two runs")
    if "T" in gains:
        shown.append("worth a paired run" if gains["T"] >= least else "not worth it on T")
    return Verdict("; ".join(shown))


def _async(report: Report, earlier: Mapping[str, Report]) -> Verdict:
    return _against_worker(report, earlier, 1.05)


def _two_workers(report: Report, earlier: Mapping[str, Report]) -> Verdict:
    verdict = _against_worker(report, earlier, 1.1)
    return Verdict(f"{'with' if report.get('mps') else 'without'} MPS; {verdict.text}")


def _fp8(report: Report, earlier: Mapping[str, Report]) -> Verdict:
    return _against_worker(report, earlier, 1.2)


def _beside(report: Report, contender: str, targets: Mapping[str, float]) -> Verdict:
    """The time of a contender over ours, against a target by workload."""
    shown = []
    for workload, target in targets.items():
        row = _row(report, workload=workload, contender=contender)
        if row is None:
            continue
        said = "reached" if row["ratio"] >= target else "missed"
        shown.append(f"{workload} {row['ratio']:.2f}x of our time (target {target}x: {said})")
    return Verdict("; ".join(shown) or "no figure")


def _vllm(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    return _beside(report, "vllm", {"T": 1.5, "C": 2.0})


def _tuned(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    return _beside(report, "vllm-tuned", {"T": 1.0, "C": 1.0})


def _large(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    row = _row(report, workload="T", contender="ours")
    if row is None:
        return Verdict("no figure of T")
    share = row["share_of_matmul"]
    said = "reached" if share >= _REACHED_LARGE else "missed"
    return Verdict(
        f"{share:.0%} of the rate of matrix products on T (target {_REACHED_LARGE:.0%}: {said});"
        f" {_speeds(report, 'T')}"
    )


def _documents(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    shown = []
    for workload, target in (("D", 3.0), ("DI", 8.0)):
        chosen = {"workload": workload, "documents": "warm"}
        warm = _row(report, **chosen, prompt="document")
        query = _row(report, **chosen, prompt="query")
        if warm and query:
            said = "reached" if query["ratio"] >= target else "missed"
            found = _shown(warm["pairs_per_second"])
            shown.append(
                f"{workload} warm {found} pairs/s, {query['ratio']:.2f}x of query first"
                f" (target {target:.0f}x: {said})"
            )
    return Verdict("; ".join(shown) or "no figure")


def _pictures(report: Report, _earlier: Mapping[str, Report]) -> Verdict:
    speeds = [row["pairs_per_second"] for row in report.get("rows", ())]
    seconds: list[float] = []
    for row in report.get("rows", ()):
        seconds += row["seconds"]
    if not speeds:
        return Verdict("no figure")
    median = statistics.median(seconds)
    return Verdict(f"{_shown(max(speeds))} pairs/s at the most; median sample {median:.2f} s")


def _speeds(report: Report, *workloads: str) -> str:
    shown = []
    for workload in workloads:
        found = speed(report, workload)
        if found is not None:
            shown.append(f"{workload} {_shown(found)} pairs/s")
    return ", ".join(shown)


def _shown(figure: float) -> str:
    """A figure as a whole number, or with three digits where it is small."""
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


MATMUL = Rule("If it fails, all stops: shares need a rate.", _matmul, needed_by=(ALL,))
WORKER = Rule(
    f"From {_REACHED_SMALL:.0%} of the rate on T, async and two-workers are skipped: little is left"
    " to hide, and no packed forward is worth building. If it fails, all stops.",
    _worker,
    needed_by=(ALL,),
)
ASYNC = Rule("Below 1.05x of step worker on T it stays off.", _async)
TWO_WORKERS = Rule(
    "Below 1.1x of step worker on T one worker a device stays advised.", _two_workers
)
VLLM = Rule("Targets: 1.5x on T, 2x on C.", _vllm)
TUNED = Rule("Below 1x on T or C our front end is in the way: profile it first.", _tuned)
FP8 = Rule("Below 1.2x of step worker on T it is not worth its accuracy.", _fp8)
LARGE = Rule(f"Target: {_REACHED_LARGE:.0%} of the rate on T.", _large)
DOCUMENTS = Rule("Targets, warm over query first: 3x on texts, 8x on pictures.", _documents)
PICTURES = Rule("No target: the first figure of served pictures on this GPU.", _pictures)
