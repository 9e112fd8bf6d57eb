"""A report has the medians of pairs, quantiles and costs of its samples, and void rows where scores
disagree."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from service.bench.comparison.chart import draw
from service.bench.comparison.measure import Sample
from service.bench.comparison.report import Comparison, ratios, summarise, tables, voided
from service.bench.comparison.roofline import Work
from service.bench.results import AGREEMENT, quantile, write_report
from tests.bench.test_plan import plan


def sample(seconds: float, *, off: float = 0.0, computed: float | None = 600.0) -> Sample:
    return Sample(
        seconds=seconds,
        latencies=[seconds, seconds / 2],
        logits=[1.0, 2.0 + off],
        pairs=2,
        cpu={"front end": seconds / 2, "engine": seconds},
        memory={"front end": 2**20, "engine": 3 * 2**20},
        prompt_tokens=computed and 1000.0,
        computed_tokens=computed,
        foreign_cores=0.0,
    )


def report(off: float = 0.0, **options: Any) -> dict[str, Any]:
    comparison = Comparison(
        "T", 1, {"ours": "float32", "vllm": options.get("dtype") or "float32"}, [Work(500, 1e9)] * 3
    )
    comparison.samples["ours"] = [sample(seconds) for seconds in (1.0, 2.0, 4.0)]
    comparison.samples["vllm"] = [
        sample(seconds, off=off, computed=None) for seconds in (2.0, 2.0, 40.0)
    ]
    return summarise(
        plan(**options), [comparison], {"float32": 1e9, "bfloat16": 2e9}, {"ours": 0.1}
    )


def test_a_ratio_is_the_median_over_pairs() -> None:
    ours, theirs = report()["rows"]
    assert (ours["ratio"], theirs["ratio"], theirs["ratios"]) == (1.0, 2.0, [2.0, 1.0, 10.0])
    assert ratios([6.0], [3.0]) == [2.0]


def test_a_row_has_medians_quantiles_and_costs() -> None:
    ours, theirs = report()["rows"]
    assert (ours["pairs_per_second"], ours["p50_ms"], ours["p99_ms"]) == (1.0, 1000.0, 4000.0)
    assert ours["cpu_seconds_per_100_pairs"] == {
        "engine": pytest.approx(700 / 6),
        "front end": pytest.approx(350 / 6),
    }
    assert (ours["memory_mib"], ours["memory_mib_by_role"]) == (
        4.0,
        {"engine": 3.0, "front end": 1.0},
    )
    assert (ours["unique_tokens"], ours["prompt_tokens"], ours["computed_tokens"]) == (
        1500,
        3000.0,
        1800.0,
    )
    assert ours["share_of_matmul"] == 0.5
    assert (theirs["prompt_tokens"], theirs["computed_tokens"]) == (None, None)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.99, 3.0),
        ([float(n) for n in range(200)], 0.99, 197.0),
    ],
)
def test_a_quantile_is_a_value_that_occurred(
    values: list[float], share: float, expected: float
) -> None:
    assert quantile(values, share) == expected


@pytest.mark.parametrize(
    ("dtype", "off", "void"),
    [
        ("float32", AGREEMENT["float32"] / 2, False),
        ("float32", AGREEMENT["float32"] * 2, True),
        ("bfloat16", AGREEMENT["bfloat16"] / 2, False),
        ("bfloat16", AGREEMENT["bfloat16"] * 2, True),
        ("bfloat16", math.nan, True),
    ],
)
def test_a_row_whose_scores_disagree_is_void(dtype: str, off: float, void: bool) -> None:
    made = report(off, dtype=dtype)
    assert [row["void"] for row in made["rows"]] == [False, void]
    assert voided(made) == (["vllm on T"] if void else [])
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_random_weights_are_not_compared() -> None:
    assert [
        (row["disagreement"], row["void"])
        for row in report(9.0, model="3b", dtype="float32")["rows"]
    ] == [(None, False)] * 2


def test_a_table_names_void_rows_and_explains_workloads() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables(report(1.0)):
        console.print(table)
    text = console.export_text()
    assert "vllm (void)" in text
    assert "2.00x" in text
    assert "T: 300-token query side x texts of 130 tokens" in text


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_a_chart_shows_the_rows_that_are_not_void(tmp_path: Path, off: float) -> None:
    made = report(off) | {"processor": "a processor", "cores": 2, "gpu": None}
    write_report(made, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")) == made
    draw(made, tmp_path / "bench.png")
    with Image.open(tmp_path / "bench.png") as picture:
        area = {colour: count for count, colour in picture.convert("RGB").getcolors(2**20) or []}
    assert area[(31, 111, 84)] > 10_000
    assert (area.get((184, 184, 184), 0) > 10_000) == (off == 0.0)
