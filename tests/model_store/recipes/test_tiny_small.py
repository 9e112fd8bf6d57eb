"""The small model of texts, with a step of each stage: what it costs, what it leads back to, and
that it is made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.checkpoint import resolve
from model_store.recipes.tiny.small import NAME, SmallSteps, make_small
from model_store.sizing.network import network_cost
from tests.conftest import TINY

pytestmark = pytest.mark.slow


def test_a_small_model_is_published_from_nothing_and_made_once(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "small"
    settings = ["batch.examples=4", "data.workers=0", "evaluate_examples=4", "data.negatives=2"]
    lines: list[str] = []
    make_small(work, folder, SmallSteps(1, 4, report_every=1), lines.append, settings)

    small, tiny = resolve(str(folder)), resolve("gmr-tiny")
    assert small.name == NAME
    assert small.family.fingerprint == tiny.family.fingerprint
    lineage = small.manifest.lineage["base"]["lineage"]
    assert lineage["signs"].startswith("1 steps of signs on T-T")
    assert lineage["tokenizer"] == {"name": "gmr-tiny", "digest": tiny.digest}

    costs = [network_cost(str(each)).operations(1, 1, 1) for each in (TINY, folder)]
    assert 4.5 < costs[0] / costs[1] < 5.5

    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    made = lines.copy()
    make_small(work, folder, SmallSteps(9, 4), lines.append, settings)
    again = lines[len(made) :]
    assert [line.split()[1] for line in again] == ["train"], "a finished run ends at once"
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
