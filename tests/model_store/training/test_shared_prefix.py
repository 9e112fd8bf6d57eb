"""Pairs that are packed behind a shared prefix have the logits and gradients of separate rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Prompt, Segment
from model_store.training.batches import Batch, Batcher, Unit
from model_store.training.config import LossConfig, TrainConfig
from model_store.training.data.rows import Example, Side
from model_store.training.gradient import Learner
from model_store.training.groups import Draw, Group, Grouper
from model_store.training.processes import Processes
from model_store.training.reranker import PairReader, Reranker, load_network, load_reranker
from model_store.training.train import train
from tests.conftest import TINY
from tests.model_store.training.colours import WORDS, write_colours
from tests.qwen3 import write_qwen3

pytestmark = pytest.mark.slow
CHECKPOINT = resolve(str(TINY))
Gradients = dict[str, Tensor]
EXACT = 1e-5
"""Largest difference of a gradient in fp32, as a share of its largest entry."""


def config(checkpoint: Checkpoint = CHECKPOINT, **values: Any) -> TrainConfig:
    least: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "output": "none",
        "data": {"train": "none"},
        "precision": "fp32",
        "device": "cpu",
    }
    values["batch"] = {"shared_prefix": True, "checkpointing": False} | values.get("batch", {})
    return TrainConfig.model_validate(least | values)


def load(checkpoint: Checkpoint = CHECKPOINT, **values: Any) -> Reranker:
    model = load_reranker(config(checkpoint, **values), checkpoint, torch.device("cpu")).train()
    # as after some steps: fresh maps give A no gradient at all
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            generator = torch.Generator().manual_seed(len(name))
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    return model


def units(
    groups: Sequence[Group], *, packed: bool, budget: int = 100_000, of: Checkpoint = CHECKPOINT
) -> list[Unit]:
    batcher = Batcher(
        budget=budget, family=of.family, architecture=of.decoder, shared_prefix=packed
    )
    return batcher.units(groups)


def learnt(
    model: Reranker, made: list[Unit], loss: LossConfig | None = None, *, step: int = 1
) -> tuple[Gradients, dict[str, float]]:
    """The gradient of a step, and what it logs."""
    model.zero_grad(set_to_none=True)
    learner = Learner(model, loss or LossConfig(), Processes(config()), seed=0)
    statistics = learner.learn(made, step, sum(len(unit.sizes) for unit in made))
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return gradients, statistics.sums


def furthest(one: Gradients, other: Gradients) -> float:
    """The largest difference, as a share of the largest entry."""
    assert one.keys() == other.keys()
    size = max(float(each.abs().max()) for each in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / size


def by_group(made: Sequence[Unit], logits: Sequence[Tensor]) -> dict[str, Tensor]:
    """The logits of each group by its name, whatever units the groups are in."""
    found: dict[str, Tensor] = {}
    for unit, values in zip(made, logits, strict=True):
        found |= dict(zip(unit.names, values.split(unit.sizes), strict=True))
    return found


def grouped(sides: Sequence[Sequence[Side]], of: Checkpoint = CHECKPOINT) -> list[Group]:
    """A group of each query, which comes first, with its documents."""
    grouper = Grouper(of.family, of.manifest.default_instruction, Draw(1, 0.0, 0))
    made: list[Group] = []
    for number, (query, *documents) in enumerate(sides):
        example = Example(str(number), None, query, tuple(documents), (), f"rows.jsonl:{number}")
        made.append(grouper.group_of(example, documents))
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_colours(folder)
    return folder


@pytest.fixture(scope="module")
def model() -> Reranker:
    return load()


@pytest.fixture(scope="module")
def mixed(pictures: Path) -> list[Group]:
    """Two groups of texts and pictures, one of which has a picture in its query, too."""
    red, blue = (Side(None, pictures / f"{name}.png") for name in ("red", "blue"))
    both = Side("which is zorp, and not blue at all?", pictures / "red.png")
    texts = [Side(f"This one is {colour}{', indeed' * 3}.", None) for colour in WORDS.values()]
    return grouped(
        [[Side("show me red", None), red, texts[0], blue], [both, texts[1], red, *texts[2:], blue]]
    )


# --- the gradient -------------------------------------------------------------


texts = st.lists(st.sampled_from(["red", "a blue one", "seven", "Paris is"]), min_size=1).map(
    " ".join
)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_logits_and_gradients_are_those_of_separate_rows(
    data: st.DataObject, pictures: Path, model: Reranker
) -> None:
    images = st.sampled_from([None, *(pictures / f"{colour}.png" for colour in WORDS.values())])
    side = st.builds(Side, texts, images)
    sides = data.draw(st.lists(st.lists(side, min_size=2, max_size=5), min_size=1, max_size=3))
    groups = grouped(sides)
    largest = max(group.longest for group in groups)
    budget = data.draw(st.integers(largest, 4 * largest), label="budget")

    apart, packed = units(groups, packed=False), units(groups, packed=True, budget=budget)
    learner = Learner(model, LossConfig(), Processes(config()), seed=0)
    wanted, found = (by_group(made, learner.logits(made)) for made in (apart, packed))
    for name, logits in wanted.items():
        assert torch.allclose(found[name], logits, atol=2e-5)
    (ours, sums), (theirs, rows) = learnt(model, packed), learnt(model, apart)
    assert furthest(theirs, ours) < EXACT
    same = {"examples", "negatives", "sft", "cl", "surrogate"}
    assert {name: sums[name] for name in same} == pytest.approx(
        {name: rows[name] for name in same}, rel=1e-4
    )
    assert sums["tokens"] <= rows["tokens"]


@pytest.mark.parametrize("loss", [("sft", "sft"), ("cl", "cl")])
def test_a_group_in_pieces_has_the_same_gradient(
    loss: tuple[str, str], mixed: list[Group], model: Reranker
) -> None:
    settings = LossConfig.model_validate(dict(zip(("weight", "direction"), loss, strict=True)))
    pieces = units(mixed, packed=True, budget=max(group.longest for group in mixed))
    assert max(len(unit.batches) for unit in pieces) > 1
    wanted, _ = learnt(model, units(mixed, packed=False), settings)
    assert furthest(wanted, learnt(model, pieces, settings)[0]) < EXACT


def test_a_teachers_loss_has_the_same_gradient(mixed: list[Group], model: Reranker) -> None:
    taught = [
        replace(group, teacher=tuple(0.7 * (number % 3) for number in range(len(group.prompts))))
        for group in mixed
    ]
    settings = LossConfig.model_validate({"teacher": {"kind": "kl", "temperature": 0.5}})
    pieces = units(taught, packed=True, budget=max(group.longest for group in mixed))
    wanted, _ = learnt(model, units(taught, packed=False), settings)
    assert furthest(wanted, learnt(model, pieces, settings)[0]) < EXACT
    assert furthest(wanted, learnt(model, pieces)[0]) > 1e-3


def test_a_text_decoder_with_normed_heads_shares_too(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "qwen3", seed=3, num_hidden_layers=2)
    base = resolve(str(folder))
    documents = [Side("This one is red." * times, None) for times in (1, 3, 2)]
    groups = grouped([[Side("which one is red?", None), *documents]], base)
    reranker = load(base)
    packed, apart = (units(groups, packed=packed, of=base) for packed in (True, False))
    assert packed[0].batches[0].ids.shape[0] == 1
    assert furthest(learnt(reranker, apart)[0], learnt(reranker, packed)[0]) < EXACT


def test_checkpointing_changes_no_bit(mixed: list[Group], model: Reranker) -> None:
    made = units(mixed, packed=True)
    twice, _ = learnt(load(batch={"checkpointing": True}), made)
    assert furthest(learnt(model, made)[0], twice) == 0


def test_half_precision_is_as_near_as_it_is_in_rows(mixed: list[Group], model: Reranker) -> None:
    half = load(precision="bf16")
    exact, _ = learnt(model, units(mixed, packed=False))
    packed, apart = (learnt(half, units(mixed, packed=each))[0] for each in (True, False))
    assert furthest(exact, packed) < max(0.05, 2 * furthest(exact, apart))


def test_dropout_is_a_function_of_seed_and_step_in_both_readings(mixed: list[Group]) -> None:
    model = load(lora={"rank": 2, "alpha": 4, "dropout": 0.5}, batch={"checkpointing": True})
    pieces = units(mixed[1:], packed=True, budget=mixed[1].longest)
    assert len(pieces[0].batches) > 1
    loss = LossConfig(weight="cl", direction="cl")
    one, _ = learnt(model, pieces, loss)
    torch.manual_seed(99)
    same, _ = learnt(model, pieces, loss)
    other, _ = learnt(model, pieces, loss, step=2)
    assert furthest(one, same) == 0
    assert furthest(one, other) > 1e-3


def test_pictures_are_read_once_and_prefixes_too(mixed: list[Group]) -> None:
    (unit,) = units(mixed, packed=True)
    (batch,) = unit.batches
    assert batch.grids is not None
    assert len(batch.grids) == 2
    prefixes = sum(len(group.prompts[0].prefix.ids) for group in mixed)
    suffixes = sum(len(prompt.suffix.ids) for group in mixed for prompt in group.prompts)
    assert batch.ids.shape == (1, prefixes + suffixes)
    assert batch.tokens == prefixes + suffixes


def test_a_decoder_that_would_read_the_row_as_one_text_is_refused(mixed: list[Group]) -> None:
    network = load_network(CHECKPOINT, torch.float32)
    (unit,) = units(mixed, packed=True)
    reader = PairReader(CHECKPOINT.family, CHECKPOINT.decoder)
    with pytest.raises(ValueError, match="needs a decoder after use_shared_prefixes"):
        reader.read(network, unit.batches[0])


# --- the packing --------------------------------------------------------------


def synthetic(shapes: list[tuple[int, list[int]]]) -> list[Group]:
    """Groups whose prefix and suffixes have so many tokens, no two of which are the same."""
    ids = itertools.count(1)
    made: list[Group] = []
    for number, (prefix, suffixes) in enumerate(shapes):
        shared = Segment(tuple(itertools.islice(ids, prefix)))
        prompts = tuple(
            Prompt(shared, Segment(tuple(itertools.islice(ids, suffix))), truncated=False)
            for suffix in suffixes
        )
        made.append(Group(f"g{number}", f"rows.jsonl:{number}", prompts, {}, 0))
    return made


def pairs_of(batch: Batch) -> list[tuple[int, ...]]:
    """The tokens that each pair's last one sees, by the batch's own layout."""
    assert batch.packing is not None
    row, at, found = batch.ids[0], 0, []
    for group in batch.packing.groups:
        prefix, own = row[at : at + group.prefix], row[at + group.prefix : at + group.tokens]
        lengths = torch.bincount(group.places // group.columns.shape[1])
        for columns, length in zip(group.columns, lengths.tolist(), strict=True):
            seen = group.visible[length - 1]
            keys = torch.cat([prefix, own[columns]])
            found.append(tuple(keys[seen].tolist()))
        at += group.tokens
    assert at == len(row)
    return found


sizes = st.integers(1, 12)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(sizes, st.lists(sizes, min_size=1, max_size=6)), min_size=1),
    budget=st.integers(8, 60),
)
def test_every_pair_is_packed_once_in_order_within_the_budget(
    shapes: list[tuple[int, list[int]]], budget: int
) -> None:
    groups = {f"{group.id} ({group.location})": group for group in synthetic(shapes)}
    names: list[str] = []
    for unit in units(list(groups.values()), packed=True, budget=budget):
        names += unit.names
        wanted = [prompt.ids for name in unit.names for prompt in groups[name].prompts]
        found = [pair for batch in unit.batches for pair in pairs_of(batch)]
        assert found == wanted
        assert len(unit.batches) == 1 or len(unit.names) == 1
        for batch in unit.batches:
            assert batch.ids.numel() == batch.tokens
            assert batch.packing is not None
            padded = sum(each.prefix + each.columns.numel() for each in batch.packing.groups)
            assert padded <= budget or len(batch.last) == 1  # attention has a row for each pair
            assert batch.ids[0, batch.last].tolist() == [pair[-1] for pair in pairs_of(batch)]
    assert sorted(names) == sorted(groups)


def test_a_query_that_was_cut_for_one_document_is_a_prefix_of_its_own() -> None:
    (group,) = synthetic([(5, [3, 3, 2])])
    short = Prompt(Segment((91, 92)), Segment((93, 94, 95)), truncated=True)
    cut = Group(group.id, group.location, (group.prompts[0], short, *group.prompts[1:]), {}, 0)
    (unit,) = units([cut], packed=True)
    assert pairs_of(unit.batches[0]) == [prompt.ids for prompt in cut.prompts]
    packing = unit.batches[0].packing
    assert packing is not None
    assert [shared.prefix for shared in packing.groups] == [5, 2, 5]


# --- a run --------------------------------------------------------------------


def test_a_prompt_that_begins_with_the_document_shares_nothing_and_says_so(tmp_path: Path) -> None:
    values = {
        "output": str(tmp_path / "run"),
        "data": {"train": str(write_colours(tmp_path)), "negatives": 3, "random_share": 0.34},
        "template": "document-first",
        "batch": {"examples": 2, "tokens": 8192},
        "steps": 1,
    }
    stream = StringIO()
    train(config(**values), stream=stream)
    assert "prompts do not begin with the query, so that the pairs of a group share" in (
        stream.getvalue()
    )
