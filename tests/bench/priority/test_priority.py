"""The measurement of requests beside a stream, on small windows, with a real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.bench.priority.report import PriorityRow
from service.bench.priority.run import LOADS, Windows, run_priority
from tests.bench.plans import torch_plan


@pytest.mark.slow
def test_a_run_prints_a_table_and_writes_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "priority.json"
    run_priority(torch_plan(output, samples=1, documents=2), Windows(seconds=3.0, pause=0.2))
    assert "requests alone and beside a stream" in capsys.readouterr().out
    report = json.loads(output.read_text(encoding="utf-8"))
    assert [row["load"] for row in report["rows"]] == list(LOADS)
    for row in report["rows"]:
        assert row["requests"] > 0
        assert 0 < row["calm_p50"] <= row["calm_p99"]
        assert row["p99_ratio"] == row["beside_p99"] / row["calm_p99"]
        assert row["stream_alone_pairs"] > 0


def test_ratios_are_those_of_the_quantiles() -> None:
    row = PriorityRow("T", 0.5, 100, 0.1, 0.2, 0.1, 0.25, 30.0, 40.0)
    assert (row.p99_ratio, row.stream_share) == (1.25, 0.75)
