"""A state is whole or not there, whatever the disk does; so is everything else a run writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model_store.training.config import OptimizerConfig, TrainingError
from model_store.training.early_stop import Best, Evaluations
from model_store.training.journal import METRICS, Journal, read_metrics
from model_store.training.plots import draw
from model_store.training.schedule import learning_rate
from model_store.training.state import BEST, MOMENTS, STATE, WEIGHTS, latest, save
from tests.model_store.disk import file_size_limit

RUN = {"seed": 1}


def tensors(step: int, size: int = 3) -> tuple[dict[str, Tensor], dict[str, Any]]:
    moments = {
        "state": {"a": {"step": torch.tensor(float(step)), "exp_avg": torch.full((size,), 0.5)}},
        "param_groups": [{"lr": 1.0}],
    }
    return {"a": torch.full((size,), float(step))}, moments


def saved(root: Path, *steps: int, keep: int = 2) -> None:
    for step in steps:
        save(root, step, RUN, *tensors(step), keep=keep)


def test_the_newest_states_are_kept_and_read_back(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") == (None, [])
    saved(tmp_path, 5, 10, 15)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000015"]
    state, damaged = latest(tmp_path)
    assert state is not None
    assert (state.step, state.run, damaged) == (15, RUN, [])
    weights, moments = tensors(15)
    assert torch.equal(state.weights["a"], weights["a"])
    assert torch.equal(state.moments["state"]["a"]["exp_avg"], moments["state"]["a"]["exp_avg"])
    assert state.moments["param_groups"] == moments["param_groups"]


@pytest.mark.parametrize("name", [WEIGHTS, MOMENTS, "state.json"])
@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_damaged_state_is_passed_over_and_replaced(tmp_path: Path, name: str, harm: str) -> None:
    saved(tmp_path, 5, 10)
    path = tmp_path / "step-00000010" / name
    data = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(
            data[: len(data) // 2]
            if harm == "cut"
            else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        )
    state, damaged = latest(tmp_path)
    assert state is not None
    assert state.step == 5
    assert ["step-00000010" in sentence for sentence in damaged] == [True]
    saved(tmp_path, 10)
    assert latest(tmp_path)[0].step == 10  # type: ignore[union-attr]


def test_a_full_disk_leaves_the_states_before(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    weights, moments = tensors(10, size=100_000)
    for large in ((weights, tensors(10)[1]), (tensors(10)[0], moments)):
        with (
            file_size_limit(50_000),
            pytest.raises(
                TrainingError, match=r"step 10 cannot be written.*the states before it stay"
            ),
        ):
            save(tmp_path, 10, RUN, *large, keep=1)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    assert latest(tmp_path)[0].step == 5  # type: ignore[union-attr]


def test_a_killed_save_is_no_state(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    (tmp_path / ".step-00000010.draft").mkdir()
    (tmp_path / ".step-00000010.draft" / WEIGHTS).write_bytes(b"half")
    assert latest(tmp_path)[0].step == 5  # type: ignore[union-attr]
    saved(tmp_path, 10)
    assert latest(tmp_path)[0].step == 10  # type: ignore[union-attr]


def test_the_journal_goes_on_after_the_step_that_was_saved(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(step, sft=float(step))
    journal.close()
    with (tmp_path / METRICS).open("ab") as file:
        file.write(b'{"step": 4, "sf')  # killed in the middle of a line
    journal = Journal(tmp_path, 2)
    journal.write(3, sft=30.0)
    journal.close()
    assert [(row["step"], row["sft"]) for row in read_metrics(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]


def test_the_journal_names_a_full_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    with (
        file_size_limit(10),
        pytest.raises(
            TrainingError, match=r"metrics\.jsonl: it cannot be written \(File too large\)"
        ),
    ):
        journal.write(1, sft=0.123456789)


def test_a_run_that_begins_anew_has_none_of_the_rows_before(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal(tmp_path, 0)
        journal.write(0, dev_ndcg=0.5)
        journal.write(1, sft=1.0)
        journal.close()
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]


def test_a_state_without_an_early_stop_is_as_it_was(tmp_path: Path) -> None:
    """A state that an earlier version wrote has no such field, and is read."""
    saved(tmp_path, 5)
    described = json.loads((tmp_path / "step-00000005" / STATE).read_text())
    assert set(described) == {"step", "run", "files"}
    state, _ = latest(tmp_path)
    assert state is not None
    assert state.best is None


def test_a_best_state_is_read_back_and_its_damage_noticed(tmp_path: Path) -> None:
    evaluations = Evaluations(best_step=3, best_ndcg=0.5, reference=0.4, without_gain=2)
    best = Best(evaluations, {"a": torch.full((3,), 3.0)})
    for step in (5, 6):
        save(tmp_path, step, RUN, *tensors(step), keep=2, best=best)
    (tmp_path / "step-00000006" / BEST).write_bytes(b"damaged")
    state, damaged = latest(tmp_path)
    assert state is not None
    assert (state.step, len(damaged)) == (5, 1)
    assert state.best is not None
    assert state.best.evaluations == evaluations
    assert torch.equal(state.best.weights["a"], best.weights["a"])


def test_a_plot_of_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to draw yet"):
        draw(tmp_path)
    journal = Journal(tmp_path, 0)
    for step in range(1, 40):
        journal.write(
            step, sft=1 / step, cl=0.5 / step, positive_weight=1 / step, negative_weight=0.0
        )
    journal.write(39, dev_sft=0.1, dev_ndcg=0.9)
    journal.close()
    assert draw(tmp_path).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, "training.png"]


def test_the_rate_rises_and_falls() -> None:
    settings = OptimizerConfig(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, settings) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == 1.0
    assert 0 < rates[-1] < 0.01
    flat = OptimizerConfig(learning_rate=0.5, warmup=0.0, schedule="constant")
    assert {learning_rate(step, 7, flat) for step in range(1, 8)} == {0.5}
    assert learning_rate(
        51, 101, OptimizerConfig(learning_rate=1.0, warmup=0.0, schedule="linear")
    ) == pytest.approx(1 - 50 / 101)
