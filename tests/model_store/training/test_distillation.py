"""The losses towards a teacher equal their formulas written out by hand, with autograd's gradients,
and a row's teacher scores reach the step that they belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.training.batches import Batcher
from model_store.training.config import LossConfig, TeacherConfig, TrainConfig
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, Negative, Side, parse_row, read_examples
from model_store.training.data.splits import split
from model_store.training.distillation import Distillation, teacher_loss
from model_store.training.gradient import Learner
from model_store.training.groups import Draw, Grouper
from model_store.training.losses import sft_loss
from model_store.training.processes import Processes
from model_store.training.train import check, train
from tests.conftest import TINY

Lists = list[tuple[float, float]]
number = st.floats(-6, 6, width=32)


@st.composite
def batches(draw: st.DrawFn) -> list[Lists]:
    """(score, teacher's score) of each document of each example."""
    documents = draw(st.integers(2, 12))
    pair = st.lists(st.tuples(number, number), min_size=documents, max_size=documents)
    return draw(st.lists(pair, min_size=1, max_size=3))


def kl_by_hand(example: Lists, temperature: float) -> float:
    own = [math.exp(score) for score, _ in example]
    wanted = [math.exp(score / temperature) for _, score in example]
    total = 0.0
    for mine, teachers in zip(own, wanted, strict=True):
        share = teachers / sum(wanted)
        total += share * math.log(share / (mine / sum(own)))
    return total


def margins_by_hand(example: Lists, temperature: float) -> float:
    (first, wanted_first), *others = example
    total = 0.0
    for score, wanted in others:
        total += ((first - score) - (wanted_first - wanted) / temperature) ** 2
    return total / len(others)


@settings(max_examples=100, deadline=None)
@given(batches(), st.floats(0.25, 4))
def test_the_losses_equal_their_formulas_and_a_constant_changes_nothing(
    batch: list[Lists], temperature: float
) -> None:
    pairs = torch.tensor(batch, dtype=torch.float64)
    scores, teacher = pairs[..., 0], pairs[..., 1]
    formulas: dict[Distillation, Callable[[Lists, float], float]] = {
        "kl": kl_by_hand,
        "margin_mse": margins_by_hand,
    }
    for kind, by_hand in formulas.items():
        wanted = sum(by_hand(example, temperature) for example in batch) / len(batch)
        for own, given_by in ((scores, teacher), (scores + 3.5, teacher - 2.5)):
            loss = teacher_loss(own, given_by, kind=kind, temperature=temperature)
            assert loss.item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(batches())
def test_the_gradients_are_the_residuals(batch: list[Lists]) -> None:
    pairs = torch.tensor(batch, dtype=torch.float64)
    scores, teacher = pairs[..., 0].clone().requires_grad_(), pairs[..., 1]
    (kl,) = torch.autograd.grad(teacher_loss(scores, teacher, kind="kl"), scores)
    residual = (scores.softmax(1) - teacher.softmax(1)) / len(batch)
    torch.testing.assert_close(kl, residual.detach(), rtol=1e-6, atol=1e-9)

    (margins,) = torch.autograd.grad(teacher_loss(scores, teacher, kind="margin_mse"), scores)
    error = ((scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])).detach()
    per_document = -2 * error / error.numel()
    torch.testing.assert_close(margins[:, 1:], per_document, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(margins[:, 0], -per_document.sum(1), rtol=1e-6, atol=1e-9)


def row(number: int, *, scores: bool = True) -> Example:
    """A row whose documents say their place, each with ten times its place as its score.

    All rows have the negative of place 5.
    """
    negatives: list[Negative] = []
    for place in range(2, 9):
        text = "negative 5" if place == 5 else f"negative {place} of {number}"
        negatives.append(Negative(Side(text, None), "hard"))
    return Example(
        id=f"row {number}",
        instruction=None,
        query=Side(f"query {number}", None),
        positives=(Side(f"positive 0 {number}", None), Side(f"positive 1 {number}", None)),
        negatives=tuple(negatives),
        location="",
        teacher_scores=tuple(10.0 * place for place in range(9)) if scores else None,
    )


def test_scores_are_read_back_and_stay_with_their_documents(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_examples(path, [row(1)])
    (example,) = read_examples(path)
    assert example.teacher_scores == row(1).teacher_scores
    for epoch in range(5):
        draw = Draw(4, 0.0, seed=1)
        sides, _ = draw.documents(example, epoch)
        checkpoint = resolve(str(TINY))
        default = checkpoint.manifest.default_instruction
        group = Grouper(checkpoint.family, default, draw).group(example, epoch)
        places = [10.0 * int(str(side.text).split()[1]) for side in sides]
        assert group.teacher == tuple(places)


def test_a_negative_that_a_split_takes_out_takes_its_score_along(tmp_path: Path) -> None:
    rows = [row(number) for number in range(40)]
    held = Example("held", None, Side("held", None), (Side("negative 5", None),), (), "")
    write_examples(tmp_path / "rows.jsonl", [*rows, held])
    for seed in range(200):
        train_file, dev_file = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
        split(tmp_path / "rows.jsonl", train_file, dev_file, share=0.1, seed=seed)
        if any(example.id == "held" for example in read_examples(dev_file)):
            break
    for example in read_examples(train_file):
        documents = [*example.positives, *(negative.side for negative in example.negatives)]
        assert example.teacher_scores is not None
        assert [f"{score / 10:g}" for score in example.teacher_scores] == [
            str(side.text).split()[1] for side in documents
        ]
        assert "negative 5" not in [side.text for side in documents]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.5], "there are 1 teacher_scores for 2 documents"),
        ([0.5, 1001], "teacher_scores[1] must be between -1000 and 1000"),
    ],
)
def test_wrong_scores_are_named(scores: list[float], said: str) -> None:
    line = json.dumps(
        {"query": "q", "positives": ["p"], "negatives": ["n"], "teacher_scores": scores}
    )
    with pytest.raises(DataError) as raised:
        parse_row(line.encode(), Path("rows.jsonl"), 3)
    assert str(raised.value) == f"rows.jsonl:3: {said}."


def settings_of(tmp_path: Path, **loss: object) -> TrainConfig:
    values = {
        "model": str(TINY),
        "output": tmp_path / "run",
        "data": {"train": tmp_path / "rows.jsonl", "negatives": 4, "random_share": 0},
        "loss": loss,
        "batch": {"examples": 2, "tokens": 4096},
        "steps": 2,
        "precision": "fp32",
        "device": "cpu",
    }
    return TrainConfig.model_validate(values)


def test_rows_without_scores_are_refused_before_the_first_step(tmp_path: Path) -> None:
    write_examples(tmp_path / "rows.jsonl", [row(1), row(2, scores=False)])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the row has no teacher_scores, which"):
        check(settings_of(tmp_path, teacher={"kind": "kl"}))
    assert check(settings_of(tmp_path)) == 2


def test_the_states_of_runs_without_a_teacher_are_those_of_before(tmp_path: Path) -> None:
    assert not [key for key in settings_of(tmp_path).decisive_settings() if "teacher" in key]
    taught = settings_of(tmp_path, teacher={"kind": "kl"}).decisive_settings()
    assert {key: taught[key] for key in taught if "teacher" in key} == {
        "loss.teacher.kind": "kl",
        "loss.teacher.weight": 1.0,
        "loss.teacher.temperature": 1.0,
    }


@pytest.mark.slow
def test_a_step_has_the_gradient_of_both_losses(tmp_path: Path) -> None:
    checkpoint = resolve(str(TINY))
    draw = Draw(4, 0.0, seed=1)
    grouper = Grouper(checkpoint.family, checkpoint.manifest.default_instruction, draw)
    groups = [grouper.group(row(number), 0) for number in range(3)]
    logits = torch.randn(15, 2, generator=torch.Generator().manual_seed(2))
    teacher = torch.tensor([group.teacher for group in groups]) / 20

    wanted = logits.clone().requires_grad_()
    grid = wanted.view(3, 5, 2)
    scores = grid[..., 0] - grid[..., 1]
    loss = sft_loss(grid) + 0.5 * teacher_loss(scores, teacher, kind="margin_mse")
    (gradient,) = torch.autograd.grad(loss, wanted)

    class Fixed(torch.nn.Module):
        """Answers with free logits, however the pairs are packed."""

        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(logits.clone())
            self.at: dict[tuple[int, ...], int] = {}

        def forward(self, batch: object) -> torch.Tensor:
            places = []
            for ids, last in zip(batch.ids, batch.last, strict=True):  # type: ignore[attr-defined]
                places.append(self.at[tuple(ids[: last + 1].tolist())])
            return self.logits[places]

    model = Fixed()
    for group in groups:
        for prompt in group.prompts:
            model.at[tuple(prompt.ids)] = len(model.at)
    assert len(model.at) == 15

    config = LossConfig(teacher=TeacherConfig(kind="margin_mse", weight=0.5, temperature=20))
    processes = Processes(settings_of(tmp_path))
    for budget in (100_000, 100):
        model.zero_grad(set_to_none=True)
        batcher = Batcher(budget=budget, family=checkpoint.family, architecture=checkpoint.decoder)
        learner = Learner(model, config, processes, seed=0)
        statistics = learner.learn(batcher.units(groups), 1, 3)
        assert model.logits.grad is not None
        torch.testing.assert_close(model.logits.grad, gradient, rtol=1e-5, atol=1e-6)
        assert statistics.sums["teacher"] / 3 == pytest.approx(
            teacher_loss(scores, teacher, kind="margin_mse").item(), rel=1e-5
        )


@pytest.mark.slow
def test_a_run_learns_from_its_teacher_and_logs_it(tmp_path: Path) -> None:
    write_examples(tmp_path / "rows.jsonl", [row(1), row(2)])
    folder = train(settings_of(tmp_path, teacher={"kind": "kl", "temperature": 10}))
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert all(line["teacher"] > 0 for line in logged if "sft" in line)
