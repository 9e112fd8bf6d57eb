"""`gmr bench` as an operator runs it: a process, a table, a file of numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.evaluation.bench import AGREEMENT, Row


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_a_run_prints_a_table_and_writes_its_numbers(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    done = bench("--workloads", "T", "--samples", "1", "--documents", "5", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "5 documents a request" in done.stdout
    assert "300-token query side x texts of 130 tokens" in done.stdout
    assert "void" not in done.stdout
    report = json.loads(output.read_text(encoding="utf-8"))
    assert (report["model"], report["documents"], report["samples"]) == ("gmr-tiny", 5, 1)
    assert set(report["versions"]) == {"gmr-rerank", "torch", "transformers"}
    (row,) = report["rows"]
    assert row["workload"] == "T"
    assert row["disagreement"] <= AGREEMENT
    for side, ratio in (("naive", "ratio"), ("frugal", "ratio_frugal")):
        assert row[ratio] == pytest.approx(row[side][0] / row["service"][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--workloads", "T,X"), "There is no workload 'X': choose from T, Q, L, C.\n"),
        (("--output", "nowhere/bench.json"), "There is no folder nowhere to write to.\n"),
        (("--model", "gmr-huge"), "There is no model 'gmr-huge': it is no folder, no hub id, and none of gmr-tiny.\n"),
    ],
)
def test_a_wrong_name_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = bench(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_a_ratio_is_the_median_over_pairs() -> None:
    row = Row("T", service=[1.0, 2.0, 4.0], naive=[2.0, 2.0, 40.0])
    assert row.ratio(row.naive) == 2.0


def test_a_logit_that_is_no_number_is_a_disagreement() -> None:
    assert Row("T", offs=[1e-6, float("nan")]).disagreement > AGREEMENT
    assert Row("T", offs=[1e-6, 2e-6]).disagreement <= AGREEMENT
