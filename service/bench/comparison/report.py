"""The report of a comparison: medians, paired ratios, costs by process and void rows, as tables and
as JSON.

Does not depend on how samples were taken. Invariant: a ratio is the median over pairs of samples of
one request, a contender's time over the reference's; no number is computed from two runs.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from service.bench.comparison.measure import Sample
from service.bench.comparison.roofline import Work
from service.bench.plan import Plan
from service.bench.results import AGREEMENT, largest_difference, quantile
from service.bench.service import has_mps
from service.bench.traffic import DESCRIPTIONS

_HEADINGS = (
    "",
    "contender",
    "pairs/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "CPU s/100",
    "MiB",
    "tokens",
    "of GEMM",
    "logit off",
)


@dataclass(slots=True)
class Comparison:
    """The samples of one workload at one number of callers, by contender, the reference first.

    All lists have the same order: the order in which the samples were taken.
    """

    workload: str
    callers: int
    dtypes: dict[str, str]
    work: list[Work] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))


def ratios(times: Sequence[float], reference: Sequence[float]) -> list[float]:
    """A contender's times over the reference's, pair by pair."""
    return [one / other for one, other in zip(times, reference, strict=True)]


def disagreement(samples: Sequence[Sample], reference: Sequence[Sample]) -> float:
    """The largest difference between two logits of one pair; infinite where one is not a number."""
    pairs: list[tuple[float, float]] = []
    for sample, other in zip(samples, reference, strict=True):
        pairs += zip(sample.logits, other.logits, strict=True)
    return largest_difference(pairs)


def summarise(
    plan: Plan,
    comparisons: Sequence[Comparison],
    rates: Mapping[str, float],
    idle: Mapping[str, float],
) -> dict[str, Any]:
    """The report as JSON has it. `rates` are operations a second of matrix products by dtype,
    `idle` the cores that each contender keeps busy without requests."""
    rows: list[dict[str, Any]] = []
    for comparison in comparisons:
        rows += _rows(plan, comparison, rates)

    return {
        "model": plan.model,
        "device": plan.device,
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "documents": plan.documents,
        "samples": plan.samples,
        "workers": plan.workers,
        "mps": plan.workers > 1 and plan.device == "cuda" and has_mps(),
        "engine_settings": plan.engine_settings(),
        "matmul_gflops": {dtype: round(rate / 1e9, 1) for dtype, rate in rates.items()},
        "idle_cores": dict(idle),
        "rows": rows,
    }


def tables(report: Mapping[str, Any]) -> list[Table]:
    """One table for each number of callers."""
    made = []
    for callers in dict.fromkeys(row["callers"] for row in report["rows"]):
        table = Table(
            title=(
                f"{report['model']}, {report['documents']} documents a request, {callers} at once;"
                " ratio: time over the first's"
            )
        )
        for heading in _HEADINGS:
            table.add_column(heading, justify="right")

        for row in report["rows"]:
            if row["callers"] == callers:
                table.add_row(*_cells(row))

        workloads = dict.fromkeys(row["workload"] for row in report["rows"])
        table.caption = "\n".join(f"{letter}: {DESCRIPTIONS[letter]}" for letter in workloads)
        made.append(table)
    return made


def voided(report: Mapping[str, Any]) -> list[str]:
    """The rows whose scores disagree, as `CONTENDER on WORKLOAD`."""
    return [f"{row['contender']} on {row['workload']}" for row in report["rows"] if row["void"]]


def _rows(plan: Plan, comparison: Comparison, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row a contender."""
    reference = next(iter(comparison.dtypes))
    reference_samples = comparison.samples[reference]
    reference_seconds = [sample.seconds for sample in reference_samples]

    rows = []
    for name, dtype in comparison.dtypes.items():
        samples = comparison.samples[name]
        paired = ratios([sample.seconds for sample in samples], reference_seconds)
        off = None if plan.random_weights else disagreement(samples, reference_samples)
        allowed = allowed_difference(plan, dtype, comparison.dtypes[reference])
        rows.append(
            {
                "workload": comparison.workload,
                "callers": comparison.callers,
                "contender": name,
                "dtype": dtype,
                **timing(samples),
                **cost(samples),
                **_arithmetic(samples, comparison.work, rates[dtype]),
                "ratio": statistics.median(paired),
                "ratios": paired,
                "disagreement": off if off is None or math.isfinite(off) else "infinite",
                "void": off is not None and not off <= allowed,
            }
        )
    return rows


def allowed_difference(plan: Plan, *dtypes: str) -> float:
    """The difference between two logits at which a row is still valid. Quantised weights are
    compared by ranking metrics, not here."""
    if plan.quantization:
        return math.inf
    return AGREEMENT["bfloat16" if "bfloat16" in dtypes else dtypes[0]]


def timing(samples: Sequence[Sample]) -> dict[str, Any]:
    """Pairs a second and latencies of samples, and the load of others on the machine."""
    latencies: list[float] = []
    for sample in samples:
        latencies += sample.latencies

    return {
        "seconds": [sample.seconds for sample in samples],
        "pairs_per_second": statistics.median(sample.pairs / sample.seconds for sample in samples),
        "p50_ms": quantile(latencies, 0.5) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "foreign_cores": [round(sample.foreign_cores, 2) for sample in samples],
    }


def cost(samples: Sequence[Sample]) -> dict[str, Any]:
    """Processor seconds for 100 pairs, and the most memory after any sample, by role."""
    pairs = sum(sample.pairs for sample in samples)
    roles: set[str] = set()
    for sample in samples:
        roles |= sample.cpu.keys() | sample.memory.keys()

    cpu, memory = {}, {}
    for role in sorted(roles):
        used = sum(sample.cpu.get(role, 0.0) for sample in samples)
        cpu[role] = used / pairs * 100
        memory[role] = max(sample.memory.get(role, 0.0) for sample in samples) / 2**20

    return {
        "cpu_seconds_per_100_pairs": cpu,
        "memory_mib": max(sum(sample.memory.values()) for sample in samples) / 2**20,
        "memory_mib_by_role": memory,
    }


def _arithmetic(samples: Sequence[Sample], works: Sequence[Work], rate: float) -> dict[str, Any]:
    """Tokens, and the least arithmetic as a share of that of matrix products at `rate` in the same
    time."""
    shares = []
    for work, sample in zip(works, samples, strict=True):
        shares.append(work.operations / sample.seconds / rate)

    return {
        "unique_tokens": sum(work.tokens for work in works),
        "prompt_tokens": summed([sample.prompt_tokens for sample in samples]),
        "computed_tokens": summed([sample.computed_tokens for sample in samples]),
        "unique_gflop": sum(work.operations for work in works) / 1e9,
        "share_of_matmul": statistics.median(shares),
    }


def summed(counts: Sequence[float | None]) -> float | None:
    """The sum; None where a count is missing."""
    total = 0.0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _cells(row: Mapping[str, Any]) -> list[str]:
    computed, off = row["computed_tokens"], row["disagreement"]
    if isinstance(off, float):
        off = f"{off:.1e}"

    return [
        row["workload"],
        f"{row['contender']} (void)" if row["void"] else row["contender"],
        f"{row['pairs_per_second']:.1f}",
        f"{row['ratio']:.2f}x",
        f"{row['p50_ms']:.0f}",
        f"{row['p99_ms']:.0f}",
        f"{sum(row['cpu_seconds_per_100_pairs'].values()):.2f}",
        f"{row['memory_mib']:.0f}",
        "" if computed is None else f"{computed / row['unique_tokens']:.2f}x",
        f"{row['share_of_matmul']:.0%}",
        off or "",
    ]
