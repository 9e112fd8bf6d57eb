"""The report of documents that come back: rows by contender, prompt and temperature, as a table and
as JSON.

Does not depend on how samples were taken. Invariant: a ratio is the median over pairs of samples of
one request; a row is void where its warm scores differ from its cold ones, or from those of the
first contender with the same prompt.
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
from service.bench.comparison.report import (
    allowed_difference,
    cost,
    disagreement,
    ratios,
    summed,
    timing,
)
from service.bench.plan import Plan
from service.bench.reuse.pool import DESCRIPTIONS

COLD, WARM = "cold", "warm"
"""Requests for documents that were never asked for, and for those that were."""
Served = tuple[str, str]
"""A contender's name, and the side that its prompts begin with."""
_HEADINGS = (
    "",
    "documents",
    "contender",
    "prompt begins with",
    "pairs/s",
    "ratio",
    "p50 ms",
    "reused",
    "computed a pair",
    "gateway CPU ms",
    "CPU s/100",
    "warm - cold",
    "others",
)


@dataclass(frozen=True, slots=True)
class Check:
    """The same pairs, scored cold by one tenant and warm by another one."""

    cold: Sample
    warm: Sample

    @property
    def difference(self) -> float:
        """The largest difference between the two logits of a pair."""
        return disagreement([self.warm], [self.cold])

    @property
    def reused(self) -> list[float | None]:
        """The shares of prompt tokens that were reused, cold and warm: evidence that they were."""
        return [_share(each.prompt_tokens, each.computed_tokens) for each in (self.cold, self.warm)]


@dataclass(slots=True)
class Measured:
    """The samples of one workload, by temperature and contender; and of each contender the check
    that warm scores are the cold ones."""

    workload: str
    contenders: list[Served]
    """The reference first."""
    samples: dict[tuple[str, Served], list[Sample]] = field(
        default_factory=lambda: defaultdict(list)
    )
    checks: dict[Served, Check] = field(default_factory=dict)


def rows_of(plan: Plan, measured: Measured) -> list[dict[str, Any]]:
    """One row for each temperature and contender."""
    rows = []
    for temperature in (COLD, WARM):
        reference = measured.samples[temperature, measured.contenders[0]]
        for name, prompt in measured.contenders:
            samples = measured.samples[temperature, (name, prompt)]
            same = next(other for other in measured.contenders if other[1] == prompt)
            off = disagreement(samples, measured.samples[temperature, same])
            row = _row(plan, samples, reference, measured.checks[name, prompt], off)
            shown = {"workload": measured.workload, "documents": temperature}
            rows.append(shown | {"contender": name, "prompt": prompt} | row)
    return rows


def table_of(rows: Sequence[Mapping[str, Any]], plan: Plan) -> Table:
    """The rows as a table."""
    table = Table(
        title=(
            f"{plan.model}, {plan.documents} of {plan.pool} documents a request; ratio: time over"
            " the first's"
        )
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*_cells(row))

    workloads = dict.fromkeys(row["workload"] for row in rows)
    table.caption = "\n".join(f"{letter}: {DESCRIPTIONS[letter]}" for letter in workloads)
    return table


def voided(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows that are void, in words."""
    found = []
    for row in rows:
        if row["void"]:
            found.append(
                f"{row['contender']}, {row['prompt']} first, {row['documents']} on"
                f" {row['workload']}"
            )
    return found


def _row(
    plan: Plan, samples: Sequence[Sample], reference: Sequence[Sample], check: Check, off: float
) -> dict[str, Any]:
    """One row's figures; `off` is the largest difference from another contender's logits."""
    warm = check.difference
    paired = ratios(
        [sample.seconds for sample in samples], [sample.seconds for sample in reference]
    )
    compared = not plan.random_weights
    allowed = allowed_difference(plan, plan.dtype)
    pairs = sum(sample.pairs for sample in samples)
    prompt_tokens = summed([sample.prompt_tokens for sample in samples])
    computed = summed([sample.computed_tokens for sample in samples])
    gateway = sum(sample.cpu.get("gateway", 0.0) for sample in samples)
    decoders = sum(sample.cpu.get("decoders", 0.0) for sample in samples)

    return {
        **timing(samples),
        **cost(samples),
        "ratio": statistics.median(paired),
        "ratios": paired,
        "prompt_tokens": prompt_tokens,
        "computed_tokens": computed,
        "reused_share": _share(prompt_tokens, computed),
        "computed_a_pair": None if computed is None else computed / pairs,
        "gateway_cpu_ms_a_request": (gateway + decoders) * 1000 / len(samples),
        "warm_off_cold": _number(warm) if compared else None,
        "check_reused": check.reused,
        "disagreement": _number(off) if compared else None,
        "void": compared and not max(warm, off) <= allowed,
    }


def _share(prompt_tokens: float | None, computed: float | None) -> float | None:
    """The share of prompt tokens that did not go through the network."""
    if prompt_tokens is None or computed is None or not prompt_tokens:
        return None
    return 1 - computed / prompt_tokens


def _number(value: float) -> float | str:
    """A number as JSON can have it."""
    return value if math.isfinite(value) else "infinite"


def _cells(row: Mapping[str, Any]) -> list[str]:
    reused, computed = row["reused_share"], row["computed_a_pair"]
    differences = []
    for name in ("warm_off_cold", "disagreement"):
        value = row[name]
        differences.append(f"{value:.0e}" if isinstance(value, float) else value or "")

    return [
        row["workload"],
        row["documents"],
        f"{row['contender']} (void)" if row["void"] else row["contender"],
        row["prompt"],
        f"{row['pairs_per_second']:.1f}",
        f"{row['ratio']:.2f}x",
        f"{row['p50_ms']:.0f}",
        "" if reused is None else f"{reused:.0%}",
        "" if computed is None else f"{computed:.0f}",
        f"{row['gateway_cpu_ms_a_request']:.0f}",
        f"{sum(row['cpu_seconds_per_100_pairs'].values()):.2f}",
        *differences,
    ]
