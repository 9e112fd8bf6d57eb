"""The measurement of training steps: both ways learn the same, and one computes less."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.checkpoint import SHIPPED
from model_store.families.tokens import LiteralTokenizer
from model_store.training.data.rows import read_examples
from service.bench.plan import BenchRefused
from service.bench.training.rows import NEGATIVES, write_rows
from service.bench.training.run import AGREEMENT, run_training
from tests.bench.plans import torch_plan


@pytest.mark.slow
def test_a_run_prints_a_table_and_writes_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "training.json"
    run_training(torch_plan(output, samples=1, documents=2, workloads="T,R"), [False])
    assert "pairs as rows / behind a shared prefix" in capsys.readouterr().out
    (row,) = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert row["gradient_difference"] < AGREEMENT["float32"]
    for way in ("rows", "shared"):
        (step,) = row["samples"][way]
        assert step["pairs"] == NEGATIVES + 1
        assert row[way]["pairs_per_second"] == step["pairs"] / step["seconds"]
        assert step["steps_mib"] > 0
    assert 2 * row["shared"]["tokens"] < row["rows"]["tokens"]


def test_rows_are_those_of_training_and_the_same_each_time(tmp_path: Path) -> None:
    tokenizer = LiteralTokenizer.load(SHIPPED / "gmr-tiny")
    one, same = (write_rows(tmp_path / name, "Q", 2, tokenizer) for name in ("one", "same"))
    assert one.read_bytes() == same.read_bytes()
    first, second = read_examples(one)
    assert first.query.image is not None
    assert first.query.image.read_bytes() != second.query.image.read_bytes()  # type: ignore[union-attr]
    assert {len(first.positives), len(second.positives)} == {1}
    assert len(first.negatives) == NEGATIVES


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    plan = torch_plan(tmp_path / "training.json", samples=1, documents=2, workloads="R")
    with pytest.raises(BenchRefused, match="has the workloads T, Q, L, C"):
        run_training(plan)
    with pytest.raises(BenchRefused, match="needs a checkpoint that has weights"):
        run_training(replace(plan, model="3b", workloads=("T",)))
