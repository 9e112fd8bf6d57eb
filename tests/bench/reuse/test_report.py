"""Rows of documents that come back: paired ratios in each temperature, reused tokens, and void rows
where warm scores differ from cold ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from service.bench.comparison.measure import Sample
from service.bench.results import AGREEMENT
from service.bench.reuse.report import COLD, WARM, Check, Measured, rows_of, table_of, voided
from tests.bench.test_plan import plan

SERVED = [("ours", "document"), ("ours", "query"), ("vllm-tuned", "document")]
PLAN = plan(workloads="D", contenders=None)


def sample(seconds: float, computed: float, logit: float) -> Sample:
    return Sample(
        seconds=seconds,
        latencies=[seconds],
        logits=[logit, 1.0],
        pairs=2,
        cpu={"gateway": 0.004, "decoders": 0.002, "engine": seconds},
        memory={"engine": 2**20},
        prompt_tokens=400.0,
        computed_tokens=computed,
        foreign_cores=0.0,
    )


def rows(*, warm: float = 0.0, other: float = 0.0) -> list[dict[str, Any]]:
    """`warm` is the difference of our warm logits with the document first, `other` that of the
    other contender with this prompt."""
    measured = Measured("D", SERVED)
    for served in SERVED:
        measured.checks[served] = Check(sample(1.0, 360.0, 3.0), sample(1.0, 100.0, 3.0))
        logit = 5.0 if served[1] == "query" else 2.0
        if served[0] == "vllm-tuned":
            logit += other
        speed = 4.0 if served[1] == "query" else 1.0
        measured.samples[COLD, served] = [sample(4.0, 360.0, logit)] * 3
        measured.samples[WARM, served] = [sample(speed * at, 100.0, logit) for at in (1, 2, 3)]
    cold = measured.checks[SERVED[0]].cold
    measured.checks[SERVED[0]] = Check(cold, sample(1.0, 100.0, 3.0 + warm))
    return rows_of(PLAN, measured)


def test_a_ratio_is_over_the_first_contender_in_the_same_temperature() -> None:
    found = {(row["documents"], row["contender"], row["prompt"]): row for row in rows()}
    assert [found[COLD, *served]["ratio"] for served in SERVED] == [1.0, 1.0, 1.0]
    assert [found[WARM, *served]["ratio"] for served in SERVED] == [1.0, 4.0, 1.0]

    warm = found[WARM, "ours", "document"]
    assert (warm["reused_share"], warm["computed_a_pair"]) == (0.75, 50.0)
    assert warm["gateway_cpu_ms_a_request"] == pytest.approx(6.0)
    assert warm["pairs_per_second"] == 1.0
    assert warm["check_reused"] == pytest.approx([0.1, 0.75])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({}, []),
        (
            {"warm": 2 * AGREEMENT["float32"]},
            ["ours, document first, cold on D", "ours, document first, warm on D"],
        ),
        (
            {"other": 2 * AGREEMENT["float32"]},
            ["vllm-tuned, document first, cold on D", "vllm-tuned, document first, warm on D"],
        ),
        (
            {"warm": float("nan")},
            ["ours, document first, cold on D", "ours, document first, warm on D"],
        ),
    ],
)
def test_rows_are_void_where_scores_differ(
    differences: dict[str, float], expected: list[str]
) -> None:
    """Scores of two prompts are not compared."""
    found = rows(**differences)
    assert voided(found) == expected
    json.dumps(found, allow_nan=False)


def test_a_table_has_all_rows() -> None:
    console = Console(width=180, record=True)
    console.print(table_of(rows(warm=1.0), PLAN))
    text = console.export_text()
    assert "ours (void)" in text
    assert "100 of 1000 documents a request" in text
    assert "D: new 20-token queries x texts of 130 tokens that come back" in text
