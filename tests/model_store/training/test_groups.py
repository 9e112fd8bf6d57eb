"""Groups are drawn as the paper says, rendered as the service renders, and packed without losing a
pair."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.checkpoint import resolve
from model_store.errors import DataError
from model_store.families.prompt import Image, Prompt, Segment
from model_store.training.batches import Batcher
from model_store.training.data.rows import Example, Negative, Side, read_examples
from model_store.training.groups import Draw, Group, Grouper
from model_store.training.order import Order, Share
from tests.conftest import TINY
from tests.model_store.training.colours import write_colours

CHECKPOINT = resolve(str(TINY))


def example(hard: int, random: int, positives: int = 1) -> Example:
    negatives = [Negative(Side(f"hard {n}", None), "hard") for n in range(hard)]
    negatives += [Negative(Side(f"random {n}", None), "random") for n in range(random)]
    good = tuple(Side(f"good {n}", None) for n in range(positives))
    return Example("one", None, Side("query", None), good, tuple(negatives), "train.jsonl:7")


def batcher(budget: int) -> Batcher:
    return Batcher(budget=budget, family=CHECKPOINT.family, architecture=CHECKPOINT.decoder)


def grouper(draw: Draw) -> Grouper:
    manifest = CHECKPOINT.manifest
    return Grouper(CHECKPOINT.family, manifest.default_instruction, draw)


def test_negatives_are_half_random_and_half_hard_and_new_every_epoch() -> None:
    draw = Draw(16, 0.5, seed=3)
    drawn = [draw.documents(example(40, 40, positives=3), epoch) for epoch in range(20)]
    for documents, missing in drawn:
        assert Counter(side.text.split()[0] for side in documents) == {
            "good": 1,
            "hard": 8,
            "random": 8,
        }  # type: ignore[union-attr]
        assert documents[0].text.startswith("good")  # type: ignore[union-attr]
        assert len(set(documents)) == 17
        assert missing == 0
    assert len({frozenset(documents) for documents, _ in drawn}) == 20
    assert len({documents[0] for documents, _ in drawn}) == 3
    assert drawn[5] == Draw(16, 0.5, seed=3).documents(example(40, 40, positives=3), 5)
    assert drawn[5] != Draw(16, 0.5, seed=4).documents(example(40, 40, positives=3), 5)


def test_where_there_are_fewer_fewer_are_used_and_counted() -> None:
    documents, missing = Draw(16, 0.5, seed=0).documents(example(3, 40), 0)
    assert (len(documents), missing) == (1 + 3 + 8, 5)
    documents, missing = Draw(4, 0.0, seed=0).documents(example(40, 40), 0)
    assert {side.text.split()[0] for side in documents} == {"good", "hard"}  # type: ignore[union-attr]


def test_prompts_are_the_familys_and_pictures_come_once(tmp_path: Path) -> None:
    examples = list(read_examples(write_colours(tmp_path)))
    group = grouper(Draw(3, 0.34, seed=0)).group(examples[4], 0)
    assert len(group.prompts) == 4
    assert [image.key.decode().rpartition("/")[2] for image in group.prompts[0].images] == [
        "red.png",
        "red.png",
    ]
    assert len(group.pictures) == 4
    images = {
        key: Image(key, picture.shape[1], picture.shape[0])
        for key, picture in group.pictures.items()
    }
    query = (images[str(tmp_path / "red.png").encode()], "which is zorp?")
    wanted = CHECKPOINT.family.render(
        ("Find what has this colour.",), query, [(images[str(tmp_path / "red.png").encode()],)]
    )
    assert list(group.prompts[:1]) == wanted


def test_an_example_without_an_instruction_gets_the_checkpoints() -> None:
    group = grouper(Draw(2, 0.5, seed=0)).group(example(1, 1), 0)
    wanted = CHECKPOINT.family.question((CHECKPOINT.manifest.default_instruction,), ("query",))
    assert group.prompts[0].prefix == wanted


def test_what_cannot_be_used_is_named_before_it_is_met(tmp_path: Path) -> None:
    careful = grouper(Draw(2, 0.5, seed=0))
    assert careful.problem(example(1, 1)) is None
    assert (
        careful.problem(example(0, 0))
        == "train.jsonl:7: there are no negatives of the kinds that data.random_share asks for."
    )
    long = Example(
        "x",
        "very " * 5000,
        Side("q", None),
        (Side("d", None),),
        example(1, 1).negatives,
        "train.jsonl:9",
    )
    assert (
        careful.problem(long) == "train.jsonl:9: the instruction alone has more than 3200 tokens."
    )
    with pytest.raises(DataError, match=r"train\.jsonl:9: the instruction alone"):
        careful.group(long, 0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    broken = Example(
        "x",
        None,
        Side(None, tmp_path / "broken.png"),
        (Side("d", None),),
        example(1, 1).negatives,
        "train.jsonl:11",
    )
    with pytest.raises(
        DataError, match=r"train\.jsonl:11: the image 'broken.png' cannot be used: it is no PNG"
    ):
        careful.group(broken, 0)
    assert "train.jsonl:11: an image cannot be used" in str(careful.problem(broken))


def test_a_long_document_is_cut_as_the_service_cuts_it() -> None:
    negatives = (
        Negative(Side("word " * 20_000, None), "hard"),
        Negative(Side("short", None), "random"),
    )
    long = Example("x", None, Side("q", None), (Side("d", None),), negatives, "here:1")
    prompts = grouper(Draw(2, 0.5, seed=0)).group(long, 0).prompts
    assert max(len(prompt.ids) for prompt in prompts) == CHECKPOINT.manifest.max_tokens
    assert [prompt.truncated for prompt in prompts].count(True) == 1


def flat(number: int, lengths: list[int]) -> Group:
    prefix = Segment((1,) * 3)
    prompts = tuple(
        Prompt(
            prefix, Segment(tuple(range(number * 1000, number * 1000 + length))), truncated=False
        )
        for length in lengths
    )
    return Group(f"g{number}", f"f:{number}", prompts, {}, 0)


shapes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=9), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(shapes, st.integers(43, 400))
def test_every_pair_stands_in_one_batch_within_the_budget(
    lengths: list[list[int]], budget: int
) -> None:
    groups = [flat(number, each) for number, each in enumerate(lengths)]
    found = []
    for unit in batcher(budget).units(groups):
        assert sum(unit.sizes) == sum(len(batch.ids) for batch in unit.batches)
        assert len(unit.batches) == 1 or len(unit.sizes) == 1
        for batch in unit.batches:
            assert batch.ids.numel() <= budget
            found += [
                row[: end + 1].tolist() for row, end in zip(batch.ids, batch.last, strict=True)
            ]
        firsts = [sum(unit.sizes[:at]) for at in range(len(unit.sizes))]
        marked = [flag for batch in unit.batches for flag in batch.relevant.tolist()]
        assert [place for place, flag in enumerate(marked) if flag] == firsts
    assert Counter(map(tuple, found)) == Counter(
        prompt.ids for group in groups for prompt in group.prompts
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 4))
def test_an_epoch_takes_each_example_once_however_it_is_shared(
    count: int, per_step: int, world: int
) -> None:
    order = Order(count, per_step, seed=5)
    steps = -(-3 * count // per_step)
    alone = [place for step in range(1, steps + 1) for place in order.step(step, Share())]
    for epoch in range(3):
        assert sorted(number for at, number in alone if at == epoch) == list(range(count))
    for step in range(1, steps + 1):
        shared = [order.step(step, Share(rank, world)) for rank in range(world)]
        assert sorted(place for share in shared for place in share) == sorted(
            order.step(step, Share())
        )


def test_the_order_is_another_with_every_seed_and_epoch() -> None:
    orders = [
        [number for _, number in Order(50, 50, seed).step(step, Share())]
        for seed in (1, 2)
        for step in (1, 2)
    ]
    assert len({tuple(order) for order in orders}) == 4
