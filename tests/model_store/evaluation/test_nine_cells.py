"""The benchmark of the generated cells, from scores alone."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from model_store.checkpoint import resolve
from model_store.evaluation.nine_cells import (
    CANDIDATES,
    cell_means,
    evaluate_cells,
    questions,
    refuse_text_only,
)
from model_store.evaluation.tasks.dataset import Item
from model_store.evaluation.tasks.nine_cells import nine_cells
from model_store.manifest import CheckpointUnusable, manifest_digest
from model_store.synthetic.cells import CELLS, INSTRUCTIONS
from model_store.synthetic.examples import Example, Side
from tests.conftest import TINY

QUERIES = 3


def perfect(examples: list[Example]) -> list[list[float]]:
    """The relevant document of each query, its first, scores highest."""
    return [[1.0] + [0.0] * (len(example.documents) - 1) for example in examples]


def indifferent(examples: list[Example]) -> list[list[float]]:
    return [[0.0] * len(example.documents) for example in examples]


def test_results_name_the_checkpoint_the_benchmark_and_every_query() -> None:
    progress: list[int] = []
    results = evaluate_cells(resolve("gmr-tiny"), perfect, QUERIES, progress.append)

    assert results.benchmark == "nine-cells-3"
    assert results.checkpoint == f"sha256:{manifest_digest(TINY)}"
    assert list(results.datasets) == list(CELLS)
    assert list(results.datasets["IT-T"]) == ["IT-T/0", "IT-T/1", "IT-T/2"]
    assert results.score == 1.0
    assert progress == [1] * len(CELLS)


def test_the_relevant_document_loses_ties() -> None:
    results = evaluate_cells(resolve("gmr-tiny"), indifferent, QUERIES)
    assert results.score == 0.0  # it is the last of 20, and ten count


def test_means_have_the_share_of_queries_whose_relevant_document_is_first() -> None:
    means = cell_means(evaluate_cells(resolve("gmr-tiny"), perfect, QUERIES))
    assert [cell.cell for cell in means] == list(CELLS)
    assert {(cell.queries, cell.ndcg, cell.first) for cell in means} == {(QUERIES, 1.0, 1.0)}
    assert {cell.cell for cell in means if cell.bm25 is not None} == {"T-T"}
    assert all(0.2 < cell.chance < 0.3 for cell in means)


def test_every_second_query_has_the_default_instruction() -> None:
    asked = [example.instruction == INSTRUCTIONS["T-I"] for example in questions("T-I", 4)]
    assert asked == [True, False, True, False]


def test_a_query_is_the_same_however_many_there_are() -> None:
    few, many = list(questions("I-T", 2)), list(questions("I-T", 3))
    assert [example.documents for example in few] == [example.documents for example in many[:2]]
    assert {len(example.documents) for example in many} == {CANDIDATES}


def test_a_family_that_reads_text_only_is_refused() -> None:
    texts: Any = SimpleNamespace(name="texts", family=SimpleNamespace(images=None))
    with pytest.raises(CheckpointUnusable, match=r"^texts reads text only.*--rows of your own\.$"):
        refuse_text_only(texts)
    refuse_text_only(resolve("gmr-tiny"))


def test_the_benchmark_of_nine_tasks_has_the_same_queries_and_candidates_in_a_random_order() -> (
    None
):
    tasks = nine_cells(2).tasks
    assert [task.name for task in tasks] == list(CELLS)
    for task in (tasks[0], tasks[5], tasks[8]):
        (source,) = task.datasets
        dataset = source.load()
        for name, example in zip(dataset.queries.ids, questions(task.cell, 2), strict=True):
            assert dataset.instruction_of(name) == example.instruction
            expect_side(dataset.queries[name], example.query)
            assert dataset.candidates is not None
            documents = [f"{name}/{number}" for number in range(CANDIDATES)]
            assert dataset.judgements[name] == {documents[0]: 1}
            assert sorted(dataset.candidates[name]) == sorted(documents)
            for document, side in zip(documents, example.documents, strict=True):
                expect_side(dataset.documents[document], side)


def test_the_random_order_puts_the_relevant_document_anywhere() -> None:
    ((source,), *_) = (task.datasets for task in nine_cells(200).tasks)
    candidates = source.load().candidates
    assert candidates is not None
    places = Counter(order.index(f"{name}/0") for name, order in candidates.items())
    assert set(places) == set(range(CANDIDATES))
    assert max(places.values()) < 30


def expect_side(item: Item, side: Side) -> None:
    pictures = [part for part in side if isinstance(part, Image.Image)]
    texts = [part for part in side if isinstance(part, str)]
    assert [*pictures, *texts] == list(side)  # as an item is read
    assert ([] if item.text is None else [item.text]) == texts
    assert (item.image is None) == (not pictures)
    for picture in pictures:
        assert item.image is not None
        assert Image.open(BytesIO(item.image)).tobytes() == picture.tobytes()
