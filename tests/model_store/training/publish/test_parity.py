"""A way that is too far off stops the job and is named; a record holds every logit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from model_store.families.readout import LabelPair
from model_store.golden import GoldenPair
from model_store.training.publish.pairs import PublishRefused
from model_store.training.publish.parity import (
    PARITY,
    PREDICT_TOLERANCE,
    ROUNDING,
    TOLERANCE,
    Parity,
)

PAIRS = [GoldenPair(cell, "find", ("q",), ("d",), 0.0) for cell in ("T-T", "T-I")]


@pytest.fixture
def parity() -> Parity:
    parity = Parity(PAIRS, LabelPair("yes", "no"))
    parity.add("adapter", [1.0, -2.0])
    return parity


def test_the_tolerance_is_the_one_that_was_promised() -> None:
    assert TOLERANCE == ROUNDING["float32"] == 1e-3
    assert PREDICT_TOLERANCE == 1e-4


@pytest.mark.parametrize("off", [0.0011, -0.0011, math.nan, math.inf])
def test_a_way_that_is_too_far_off_is_refused_by_name(parity: Parity, off: float) -> None:
    with pytest.raises(
        PublishRefused,
        match=r"^Golden pair 1 \(T-I\) has logit .* merged, and -2\.0000 adapter: .*\.$",
    ):
        parity.add("merged", [1.0005, -2.0 + off], against="adapter")


def test_the_record_has_every_way_and_its_deviation(parity: Parity, tmp_path: Path) -> None:
    parity.add("merged", [1.0, -2.0009], against="adapter")
    parity.versions["torch"] = "1"
    parity.write(tmp_path)
    told = json.loads((tmp_path / PARITY).read_text(encoding="utf-8"))
    assert told["pairs"] == [
        {"cell": "T-T", "logits": {"adapter": 1.0, "merged": 1.0}},
        {"cell": "T-I", "logits": {"adapter": -2.0, "merged": -2.0009}},
    ]
    assert told["deviations"]["merged"] == {
        "against": "adapter",
        "largest": pytest.approx(0.0009),
        "tolerance": 1e-3,
    }
    assert told["versions"] == {"torch": "1"}
