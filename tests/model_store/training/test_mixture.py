"""The paper's mixture: its numbers, its instructions, and rows drawn by a seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.training.data import DataError, read_examples
from model_store.training.instructions import JUDGING, TRAINING
from model_store.training.mixture import TABLE_7, Part, mix, shares, source_of
from tests.model_store.training.rows import draw, write_rows, written

# Table 14 of the paper: how many data sets the benchmark has of each task.
TABLE_14 = {"T-T": 14, "I-I": 1, "T-I": 4, "T-VD": 5, "I-T": 5, "T-IT": 2, "IT-T": 4, "IT-I": 2, "IT-IT": 3}


def test_the_tables_are_the_papers() -> None:
    assert {(task.task, dataset) for task in TABLE_7 for dataset in task.datasets} == set(TRAINING)
    assert sum(task.number for task in TABLE_7) == 270_750  # "approximately 270K"
    assert Counter(task for task, _ in JUDGING) == TABLE_14
    told = [*TRAINING.values(), *JUDGING.values()]
    assert all(text == " ".join(text.split()) and text.endswith(".") for text in told)


@given(st.integers(0, 50), st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_a_number_is_shared_evenly_as_far_as_there_is_enough(number: int, available: list[int]) -> None:
    taken = shares(number, available)
    assert sum(taken) == min(number, sum(available))
    assert all(0 <= took <= have for took, have in zip(taken, available, strict=True))
    not_used_up = [took for took, have in zip(taken, available, strict=True) if took < have]
    assert max(taken) - min(not_used_up, default=max(taken)) <= 1


@pytest.fixture
def sources(tmp_path: Path) -> dict[Part, Path]:
    draw(tmp_path / "images/a.png", "red")
    files: dict[Part, Path] = {}
    for order, (task, dataset) in enumerate(TRAINING):
        rows = [
            {
                "id": f"{number}",
                "query": f"{dataset} {number}",
                "positives": [{"image": "images/a.png"}],
                "instruction": "Another.",
            }
            for number in range(2 if order == 0 else 12)
        ]
        files[task, dataset] = write_rows(tmp_path / f"{order}.jsonl", rows)
    return files


def test_a_mixture_has_the_papers_proportions_and_instructions(tmp_path: Path, sources: dict[Part, Path]) -> None:
    drawn = mix(sources, tmp_path / "mixture.jsonl", scale=10 / 30_000)
    examples = list(read_examples(tmp_path / "mixture.jsonl"))
    assert len(examples) == sum(drawn.rows.values()) == 90
    assert len({example.id for example in examples}) == 90
    assert drawn.rows["T-T", "WebQA"] == 2  # all that there is
    assert drawn.rows["T-T", "MS MARCO"] == 8
    assert [drawn.rows["I-T", dataset] for dataset in TABLE_7[4].datasets] == [4, 3, 3]
    assert not drawn.short
    for example in examples:
        task, dataset, _ = example.id.split("/")
        assert example.instruction == TRAINING[task, dataset]
        assert example.positives[0].image == tmp_path / "images/a.png"
    tasks = [example.id.split("/")[0] for example in examples]
    assert tasks != sorted(tasks, key=tasks.index)  # interleaved


def test_a_seed_gives_the_same_rows_and_another_seed_others(tmp_path: Path, sources: dict[Part, Path]) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mix(sources, tmp_path / f"{name}.jsonl", scale=5 / 30_000, seed=seed)
    files = written(tmp_path)
    assert files["a.jsonl"] == files["b.jsonl"]
    assert set(files["a.jsonl"].splitlines()) != set(files["c.jsonl"].splitlines())


def test_what_is_missing_is_said(tmp_path: Path, sources: dict[Part, Path]) -> None:
    drawn = mix(sources, tmp_path / "all.jsonl", scale=20 / 30_000)
    assert drawn.short == {"T-T": 6, "T-VD": 8}
    del sources["T-VD", "ViDoRe"]
    with pytest.raises(DataError, match="The mixture lacks T-VD/ViDoRe"):
        mix(sources, tmp_path / "some.jsonl")
    assert not (tmp_path / "some.jsonl").exists()
    assert mix(sources, tmp_path / "some.jsonl", scale=3 / 30_000, partial=True).short == {"T-VD": 3}
    with pytest.raises(DataError, match="T-T/MSMARCO is not in the mixture: is it T-T/MS MARCO"):
        mix({("T-T", "MSMARCO"): tmp_path / "x.jsonl"}, tmp_path / "none.jsonl")


def test_a_source_as_people_write_it() -> None:
    assert source_of("T-T/MS MARCO=a=b.jsonl") == (("T-T", "MS MARCO"), Path("a=b.jsonl"))
    with pytest.raises(DataError, match="A source is TASK/DATASET=FILE"):
        source_of("WebQA=a.jsonl")
