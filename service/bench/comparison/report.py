"""What a run found: medians, paired ratios, costs by process, and which rows are void; as tables
and as JSON.

Knows samples, not how they were taken. Invariant: a ratio is the median over pairs of samples of
one request, other over first; nothing here is computed from two runs.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from service.bench.comparison.measure import Sample
from service.bench.comparison.roofline import Work
from service.bench.plan import Plan
from service.bench.traffic import DESCRIPTIONS

AGREEMENT = {"float32": 1e-3, "bfloat16": 0.15}
"""How far the logits of two contenders may differ, by the coarser one's dtype."""
QUANTISED_AGREEMENT = math.inf
"""Quantised weights are compared on ranking metrics, not here."""


@dataclass(slots=True)
class Comparison:
    """The samples of one workload at one number of callers, by contender, the reference first; all
    lists in one order."""

    workload: str
    callers: int
    dtypes: dict[str, str]
    work: list[Work] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))


def ratios(other: Sequence[float], first: Sequence[float]) -> list[float]:
    """other / first, pair by pair."""
    return [slow / quick for slow, quick in zip(other, first, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def disagreement(samples: Sequence[Sample], reference: Sequence[Sample]) -> float:
    """The largest difference of two logits of one pair; infinite where one is not a number."""
    offs = [
        abs(one - other)
        for mine, theirs in zip(samples, reference, strict=True)
        for one, other in zip(mine.logits, theirs.logits, strict=True)
    ]
    return max((off if math.isfinite(off) else math.inf for off in offs), default=0.0)


def summarise(
    plan: Plan,
    comparisons: Sequence[Comparison],
    rates: Mapping[str, float],
    idle: Mapping[str, float],
) -> dict[str, Any]:
    """The report, as JSON will have it. `rates` are operations a second of matrix products by
    dtype."""
    return {
        "model": plan.model,
        "device": plan.device,
        "dtype": plan.dtype,
        "quantization": plan.quantization,
        "documents": plan.documents,
        "samples": plan.samples,
        "engine_settings": plan.engine_settings(),
        "matmul_gflops": {dtype: round(rate / 1e9, 1) for dtype, rate in rates.items()},
        "idle_cores": dict(idle),
        "rows": [row for comparison in comparisons for row in _rows(plan, comparison, rates)],
    }


def _rows(plan: Plan, comparison: Comparison, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    reference = next(iter(comparison.dtypes))
    first = comparison.samples[reference]
    rows = []
    for name, dtype in comparison.dtypes.items():
        samples = comparison.samples[name]
        coarse = "bfloat16" if "bfloat16" in (dtype, comparison.dtypes[reference]) else dtype
        allowed = QUANTISED_AGREEMENT if plan.quantization else AGREEMENT[coarse]
        off = None if plan.random_weights else disagreement(samples, first)
        paired = ratios(
            [sample.seconds for sample in samples], [sample.seconds for sample in first]
        )
        row = {
            "workload": comparison.workload,
            "callers": comparison.callers,
            "contender": name,
            "dtype": dtype,
        }
        row |= (
            _timing(samples) | _cost(samples) | _arithmetic(samples, comparison.work, rates[dtype])
        )
        rows.append(
            row
            | {
                "ratio": statistics.median(paired),
                "ratios": paired,
                "disagreement": off if off is None or math.isfinite(off) else "infinite",
                "void": off is not None and not off <= allowed,
            }
        )
    return rows


def _timing(samples: Sequence[Sample]) -> dict[str, Any]:
    latencies = [latency for sample in samples for latency in sample.latencies]
    return {
        "seconds": [sample.seconds for sample in samples],
        "pairs_per_second": statistics.median(sample.pairs / sample.seconds for sample in samples),
        "p50_ms": quantile(latencies, 0.5) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "foreign_cores": [round(sample.foreign_cores, 2) for sample in samples],
    }


def _cost(samples: Sequence[Sample]) -> dict[str, Any]:
    """Processor seconds for 100 pairs, and the most memory after any sample, by role."""
    pairs = sum(sample.pairs for sample in samples)
    roles = sorted({role for sample in samples for role in (*sample.cpu, *sample.memory)})
    return {
        "cpu_seconds_per_100_pairs": {
            role: sum(sample.cpu.get(role, 0.0) for sample in samples) / pairs * 100
            for role in roles
        },
        "memory_mib": max(sum(sample.memory.values()) for sample in samples) / 2**20,
        "memory_mib_by_role": {
            role: max(sample.memory.get(role, 0.0) for sample in samples) / 2**20 for role in roles
        },
    }


def _arithmetic(samples: Sequence[Sample], works: Sequence[Work], rate: float) -> dict[str, Any]:
    """Tokens, and the least arithmetic against what the machine's matrix products could have done
    in the time."""
    prompt, computed = (
        [getattr(sample, name) for sample in samples]
        for name in ("prompt_tokens", "computed_tokens")
    )
    return {
        "unique_tokens": sum(work.tokens for work in works),
        "prompt_tokens": None if None in prompt else sum(prompt),
        "computed_tokens": None if None in computed else sum(computed),
        "unique_gflop": sum(work.operations for work in works) / 1e9,
        "share_of_matmul": statistics.median(
            work.operations / sample.seconds / rate
            for work, sample in zip(works, samples, strict=True)
        ),
    }


def tables(report: Mapping[str, Any]) -> list[Table]:
    """One table for each number of callers."""
    made = []
    for callers in dict.fromkeys(row["callers"] for row in report["rows"]):
        title = (
            f"{report['model']}, {report['documents']} documents a request, {callers} at once;"
            " ratio: time over the first's"
        )
        table = Table(title=title)
        for heading in _HEADINGS:
            table.add_column(heading, justify="right")
        for row in report["rows"]:
            if row["callers"] == callers:
                table.add_row(*_cells(row))
        table.caption = "\n".join(
            f"{letter}: {DESCRIPTIONS[letter]}" for letter in _workloads(report)
        )
        made.append(table)
    return made


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


def _cells(row: Mapping[str, Any]) -> list[str]:
    computed, off = row["computed_tokens"], row["disagreement"]
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
        "" if off is None else str(off) if isinstance(off, str) else f"{off:.1e}",
    ]


def _workloads(report: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["workload"] for row in report["rows"]))


def voided(report: Mapping[str, Any]) -> list[str]:
    """The rows whose scores disagree, in words."""
    return [f"{row['contender']} on {row['workload']}" for row in report["rows"] if row["void"]]


def write(report: Mapping[str, Any], output: Path) -> None:
    """The report as JSON."""
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
