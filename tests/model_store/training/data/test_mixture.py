"""The paper's mixture: its numbers, its instructions, and rows drawn by a seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import DataError, WrongUsage
from model_store.evaluation.tasks.instructions import EVALUATION
from model_store.training.data.identity import content_key
from model_store.training.data.instructions import MODALITIES, TRAINING
from model_store.training.data.mixture import (
    TABLE_7,
    TaskDataset,
    divide_evenly,
    mix,
    modalities_of,
    parse_source,
    parse_sources,
)
from model_store.training.data.rows import read_examples
from tests.model_store.training.rows import draw, write_rows, written

# Table 14 of the paper: how many data sets the benchmark has of each task.
TABLE_14 = {
    "T-T": 14,
    "I-I": 1,
    "T-I": 4,
    "T-VD": 5,
    "I-T": 5,
    "T-IT": 2,
    "IT-T": 4,
    "IT-I": 2,
    "IT-IT": 3,
}


def test_the_tables_are_the_papers() -> None:
    parts = []
    for task in TABLE_7:
        parts += [(task.task, dataset) for dataset in task.datasets]

    assert sorted(parts) == sorted(TRAINING)
    assert sum(task.number for task in TABLE_7) == 270_750  # "approximately 270K"
    assert Counter(task for task, _ in EVALUATION) == TABLE_14

    for text in (*TRAINING.values(), *EVALUATION.values()):
        assert text == " ".join(text.split())
        assert text.endswith(".")


@given(st.integers(0, 50), st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_a_number_is_shared_evenly_as_far_as_there_is_enough(
    number: int, available: list[int]
) -> None:
    taken = divide_evenly(number, available)
    assert sum(taken) == min(number, sum(available))
    assert all(0 <= took <= have for took, have in zip(taken, available, strict=True))

    not_used_up = [took for took, have in zip(taken, available, strict=True) if took < have]

    assert max(taken) - min(not_used_up, default=max(taken)) <= 1


@pytest.fixture
def sources(tmp_path: Path) -> dict[TaskDataset, Path]:
    draw(tmp_path / "images/a.png", "red")
    files: dict[TaskDataset, Path] = {}
    for order, (task, dataset) in enumerate(TRAINING):
        rows = [
            row_of(task, f"{dataset} {number}", f"{number}")
            for number in range(2 if order == 0 else 12)
        ]
        files[task, dataset] = write_rows(tmp_path / f"{order}.jsonl", rows)

    return files


def row_of(task: str, text: str, name: str) -> dict[str, Any]:
    query, document = (side_of(modality, text) for modality in MODALITIES[task])
    return {"id": name, "query": query, "positives": [document], "instruction": "Another."}


def side_of(modality: str, text: str) -> dict[str, str]:
    side = {"text": text, "image": "images/a.png"}
    return {name: side[name] for name in modality.split(",")}


def test_a_mixture_has_the_papers_proportions_and_instructions(
    tmp_path: Path, sources: dict[TaskDataset, Path]
) -> None:
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
        assert modalities_of(example) == MODALITIES[task]

    tasks = [example.id.split("/")[0] for example in examples]

    assert tasks != sorted(tasks, key=tasks.index)  # interleaved


def test_a_seed_gives_the_same_rows_and_another_seed_others(
    tmp_path: Path, sources: dict[TaskDataset, Path]
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        mix(sources, tmp_path / f"{name}.jsonl", scale=5 / 30_000, seed=seed)

    files = written(tmp_path)

    assert files["a.jsonl"] == files["b.jsonl"]
    assert set(files["a.jsonl"].splitlines()) != set(files["c.jsonl"].splitlines())


def test_what_is_missing_is_said(tmp_path: Path, sources: dict[TaskDataset, Path]) -> None:
    drawn = mix(sources, tmp_path / "all.jsonl", scale=20 / 30_000)
    assert drawn.short == {"T-T": 6, "T-VD": 8}

    del sources["T-VD", "ViDoRe"]

    with pytest.raises(DataError, match="The mixture lacks T-VD/ViDoRe"):
        mix(sources, tmp_path / "some.jsonl")
    assert not (tmp_path / "some.jsonl").exists()
    assert mix(sources, tmp_path / "some.jsonl", scale=3 / 30_000, partial=True).short == {
        "T-VD": 3
    }
    with pytest.raises(DataError, match="T-T/MSMARCO is not in the mixture: is it T-T/MS MARCO"):
        mix({("T-T", "MSMARCO"): tmp_path / "x.jsonl"}, tmp_path / "none.jsonl")


def test_a_source_as_people_write_it() -> None:
    assert parse_source("T-T/MS MARCO=a=b.jsonl") == (("T-T", "MS MARCO"), Path("a=b.jsonl"))
    with pytest.raises(WrongUsage, match="A --source is TASK/DATASET=FILE"):
        parse_source("WebQA=a.jsonl")
    with pytest.raises(WrongUsage, match="--source T-T/WebQA is given twice"):
        parse_sources(["T-T/WebQA=a.jsonl", "T-T/WebQA=b.jsonl"])


def test_a_file_of_two_tasks_gives_each_its_own_rows_and_none_twice(tmp_path: Path) -> None:
    draw(tmp_path / "images/a.png", "red")
    rows = [row_of("T-T", f"passage {number}", f"t{number}") for number in range(5)]
    rows += [row_of("T-IT", f"image {number}", f"i{number}") for number in range(4)]
    rows += [{"id": "both", "query": "q", "positives": ["p", {"image": "images/a.png"}]}]
    webqa = write_rows(tmp_path / "webqa.jsonl", rows)
    parts = [("T-T", "WebQA"), ("T-IT", "WebQA")]
    drawn = mix(
        dict.fromkeys(parts, webqa), tmp_path / "mixed.jsonl", scale=10 / 30_000, partial=True
    )

    assert drawn.rows == {parts[0]: 5, parts[1]: 4}
    assert drawn.of_other_tasks == {parts[0]: 5, parts[1]: 6}

    examples = list(read_examples(tmp_path / "mixed.jsonl"))

    assert len({content_key(example.query) for example in examples}) == len(examples) == 9

    for example in examples:
        picture = example.instruction == TRAINING["T-IT", "WebQA"]  # "Find a Wikipedia image ..."
        assert all((side.image is not None) == picture for side in example.positives)


def test_one_file_for_two_parts_of_the_same_modalities_is_refused(
    tmp_path: Path, sources: dict[TaskDataset, Path]
) -> None:
    sources["IT-T", "OVEN"] = sources["IT-T", "LLaVA"]
    with pytest.raises(
        WrongUsage,
        match="is given for IT-T/OVEN and for IT-T/LLaVA, which have the same modalities",
    ):
        mix(sources, tmp_path / "mixed.jsonl")
    assert not (tmp_path / "mixed.jsonl").exists()
