"""The gradient is that of the losses, however groups are packed, and the logits are transformers'
own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from PIL import Image as Pil
from torch import Tensor

from model_store.checkpoint import resolve
from model_store.evaluation.naive import NaiveReranker
from model_store.training.batches import Batcher, Unit
from model_store.training.config import LossConfig, TrainConfig
from model_store.training.data.rows import read_examples
from model_store.training.gradient import Learner, StepStatistics
from model_store.training.groups import Draw, Group, Grouper
from model_store.training.losses import (
    Direction,
    Weight,
    cl_loss,
    sft_loss,
    unified_reranking_loss,
)
from model_store.training.processes import Processes
from model_store.training.reranker import Reranker, load_reranker
from tests.conftest import TINY
from tests.model_store.training.colours import write_colours

pytestmark = pytest.mark.slow
CHECKPOINT = resolve(str(TINY))
Gradients = dict[str, Tensor]


def units(groups: list[Group], budget: int) -> list[Unit]:
    batcher = Batcher(budget=budget, family=CHECKPOINT.family, architecture=CHECKPOINT.decoder)
    return batcher.units(groups)


def config(**values: Any) -> TrainConfig:
    least = {
        "model": str(TINY),
        "output": "none",
        "data": {"train": "none"},
        "precision": "fp32",
        "device": "cpu",
    }
    return TrainConfig.model_validate(least | values)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    """Six groups of two sizes, of texts and pictures."""
    folder = tmp_path_factory.mktemp("colours")
    manifest = CHECKPOINT.manifest
    made = []
    for negatives, name in ((3, "three.jsonl"), (2, "two.jsonl")):
        grouper = Grouper(
            CHECKPOINT.family,
            manifest.default_instruction,
            Draw(negatives, 0.34, seed=0),
        )
        examples = list(read_examples(write_colours(folder, name, rows=5)))
        made += [replace(grouper.group(examples[at], 0), id=f"{name}/{at}") for at in (0, 1, 4)]
    return made


@pytest.fixture(scope="module")
def load() -> Callable[..., Reranker]:
    def loaded(**values: Any) -> Reranker:
        settings = config(**values)
        model = load_reranker(settings, CHECKPOINT, torch.device("cpu")).train()
        # as after some steps: fresh maps give A no gradient at all
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(
                    parameter, std=0.02, generator=torch.Generator().manual_seed(len(name))
                )
        return model

    return loaded


def learnt(
    model: Reranker, made: list[Unit], loss: LossConfig, *, examples: int, step: int = 1
) -> tuple[Gradients, StepStatistics]:
    model.zero_grad(set_to_none=True)
    statistics = Learner(model, loss, Processes(config()), seed=0).learn(made, step, examples)
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return gradients, statistics


def furthest(one: Gradients, other: Gradients) -> float:
    """The largest difference, as a share of the largest entry."""
    assert one.keys() == other.keys()
    size = max(float(each.abs().max()) for each in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / size


def test_logits_are_those_of_transformers_forward_pass(
    tmp_path: Path, load: Callable[..., Reranker]
) -> None:
    example = list(read_examples(write_colours(tmp_path)))[4]
    manifest = CHECKPOINT.manifest
    group = Grouper(CHECKPOINT.family, manifest.default_instruction, Draw(3, 0.34, 0)).group(
        example, 0
    )
    # fresh maps change nothing
    model = load_reranker(config(), CHECKPOINT, torch.device("cpu")).eval()
    (unit,) = units([group], 10_000)
    with torch.no_grad():
        logits = model(unit.batches[0])
    naive = NaiveReranker(TINY)
    documents, _ = Draw(3, 0.34, 0).documents(example, 0)
    for (yes, no), document in zip(logits.tolist(), documents, strict=True):
        query = [Pil.open(str(example.query.image)), str(example.query.text)]
        wanted = naive.logit(str(example.instruction), query, [Pil.open(str(document.image))])
        assert yes - no == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize(
    "loss", [LossConfig(), LossConfig(weight="cl", direction="cl")], ids=["sft", "cl"]
)
def test_the_gradient_does_not_depend_on_the_packing(
    loss: LossConfig, groups: list[Group], load: Callable[..., Reranker]
) -> None:
    model = load(batch={"checkpointing": False})
    together = units(groups, 100_000)
    apart = units(groups, max(len(group.prompts) * group.longest for group in groups))
    in_pieces = units(groups, max(group.longest for group in groups))
    assert (len(together), len(apart)) == (1, len(groups))
    assert max(len(unit.batches) for unit in in_pieces) == 4
    wanted, statistics = learnt(model, together, loss, examples=len(groups))
    for other in (apart, in_pieces):
        gradients, sums = learnt(model, other, loss, examples=len(groups))
        assert furthest(wanted, gradients) < 1e-4
        assert sums.sums == pytest.approx(
            statistics.sums | {"images": sums.sums["images"]}, rel=1e-4
        )


@pytest.mark.parametrize(("weight", "true_loss"), [("sft", sft_loss), ("cl", cl_loss)])
def test_the_gradient_is_the_true_losses(
    weight: str,
    true_loss: Callable[[Tensor], Tensor],
    groups: list[Group],
    load: Callable[..., Reranker],
) -> None:
    same_size = [group for group in groups if len(group.prompts) == 4]
    (unit,) = units(same_size, 100_000)
    model = load(batch={"checkpointing": True})
    ours, statistics = learnt(
        model,
        [unit],
        LossConfig.model_validate({"weight": weight, "direction": weight}),
        examples=3,
    )
    model.zero_grad(set_to_none=True)
    loss = true_loss(model(unit.batches[0]).view(3, 4, 2))
    loss.backward()
    theirs = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert furthest(theirs, ours) < 1e-4
    assert statistics.sums[weight] / 3 == pytest.approx(loss.item(), rel=1e-5)


class Watched(torch.nn.Module):
    """A vision tower that notes whether a gradient would flow through it, and can be made to let
    one."""

    def __init__(self, tower: Any, *, always: bool) -> None:
        super().__init__()
        self.tower, self.dtype, self._always = tower, tower.dtype, always
        self.flowing: list[bool] = []

    def forward(self, pixels: Tensor, **how: Any) -> Any:
        with torch.set_grad_enabled(self._always or torch.is_grad_enabled()):
            read = self.tower(pixels, **how)
        self.flowing.append(read.pooler_output.requires_grad)
        return read


@pytest.mark.parametrize("checkpointing", [True, False])
def test_no_gradient_flows_through_a_frozen_vision_tower(
    checkpointing: bool, groups: list[Group], load: Callable[..., Reranker]
) -> None:
    model = load(batch={"checkpointing": checkpointing})
    made, tower = units(groups, 4000), model.base().model.visual
    found = {}
    for always in (True, False):
        model.base().model.visual = watched = Watched(tower, always=always)
        found[always], _ = learnt(model, made, LossConfig(), examples=len(groups))
        assert watched.flowing
        assert set(watched.flowing) == {always and checkpointing}
    assert found[True].keys() == found[False].keys()
    assert all(torch.equal(found[True][name], found[False][name]) for name in found[True])


def test_a_vision_tower_that_is_adapted_learns(
    groups: list[Group], load: Callable[..., Reranker]
) -> None:
    target = (
        r".*\.(visual\.blocks\.\d+\.mlp\.up_proj|language_model\.layers\.\d+\.self_attn\.q_proj)"
    )
    lora = {"rank": 2, "alpha": 4, "target": target, "vision": True}
    gradients, _ = learnt(load(lora=lora), units(groups, 4000), LossConfig(), examples=len(groups))
    assert all(float(each.abs().max()) > 0 for name, each in gradients.items() if "visual" in name)
    assert sum("visual" in name for name in gradients) == 8


@pytest.mark.parametrize("weight", get_args(Weight))
def test_every_weight_and_direction_takes_a_step(
    weight: Weight, groups: list[Group], load: Callable[..., Reranker]
) -> None:
    tau = 1e-3 if weight == "base_masked" else None
    model = load(batch={"checkpointing": False}, lora={"rank": 2, "alpha": 4})
    found = []
    for direction in get_args(Direction):
        loss = LossConfig(weight=weight, direction=direction, tau=tau)
        gradients, statistics = learnt(model, units(groups, 4000), loss, examples=len(groups))
        assert len(gradients) == 56
        assert statistics.not_finite == []
        assert statistics.sums["positive_weight"] > 0
        assert all(each.isfinite().all() for each in gradients.values())
        found.append(gradients)
    assert furthest(*found) > 1e-3


@pytest.mark.parametrize("kind", ["trainable", "random"])
def test_a_head_that_learns_has_a_gradient(
    kind: str, groups: list[Group], load: Callable[..., Reranker]
) -> None:
    gradients, _ = learnt(
        load(head={"kind": kind}), units(groups[:2], 4000), LossConfig(), examples=2
    )
    assert float(gradients["head.rows"].abs().max()) > 0
    assert len(gradients) == 57


def test_half_precision_keeps_maps_and_logits_whole(
    groups: list[Group], load: Callable[..., Reranker]
) -> None:
    made = units(groups, 4000)
    half, full = load(precision="bf16"), load()
    logits = half(made[0].batches[0])
    assert logits.dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters() if parameter.requires_grad} == {
        torch.float32
    }
    assert next(half.base().model.visual.parameters()).dtype == torch.bfloat16
    ours, _ = learnt(half, made, LossConfig(), examples=len(groups))
    theirs, _ = learnt(full, made, LossConfig(), examples=len(groups))
    assert furthest(ours, theirs) < 0.3


def test_dropout_is_a_function_of_seed_and_step(
    groups: list[Group], load: Callable[..., Reranker]
) -> None:
    model = load(lora={"rank": 2, "alpha": 4, "dropout": 0.5}, batch={"checkpointing": True})
    made = units(groups[:1], groups[0].longest)
    loss = LossConfig(weight="cl", direction="cl")
    one, _ = learnt(model, made, loss, examples=1, step=1)
    torch.manual_seed(99)
    same, _ = learnt(model, made, loss, examples=1, step=1)
    other, _ = learnt(model, made, loss, examples=1, step=2)
    assert furthest(one, same) == 0
    assert furthest(one, other) > 1e-3


def test_a_group_in_pieces_drops_the_same_in_both_readings(
    groups: list[Group], load: Callable[..., Reranker]
) -> None:
    model = load(lora={"rank": 2, "alpha": 4, "dropout": 0.5}, batch={"checkpointing": False})
    (unit,) = units(groups[:1], groups[0].longest)
    assert len(unit.batches) == 4
    loss = LossConfig(weight="cl", direction="cl")
    ours, _ = learnt(model, [unit], loss, examples=1)
    model.zero_grad(set_to_none=True)
    learner = Learner(model, loss, Processes(config()), seed=0)
    logits = torch.cat([learner.step_logits(unit, number, 1) for number in range(4)])
    unified_reranking_loss(logits.view(1, 4, 2), weight="cl", direction="cl").backward()
    theirs = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    assert furthest(theirs, ours) < 1e-4
