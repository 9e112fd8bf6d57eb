"""Candidates that are given: the dataset's own, and those of a run file; names of first stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.evaluation.first_stages.candidates import candidates_of
from model_store.evaluation.tasks.dataset import TaskUnusable
from tests.model_store.evaluation.first_stages.datasets import dataset_of

DOCUMENTS = [f"text {number}" for number in range(5)]


def test_own_candidates_are_bounded_distinct_and_allowed(tmp_path: Path) -> None:
    own = {"q0": ["d3", "d1", "d3", "d0", "d2"], "q1": ["d4"]}
    dataset = dataset_of(["a", "b"], DOCUMENTS, candidates=own, excluded={"q0": {"d1"}})
    candidates = candidates_of(dataset, "own", 2, tmp_path)
    assert dict(candidates) == {"q0": ["d3", "d0"], "q1": ["d4"]}
    assert list(tmp_path.iterdir()) == []


def test_own_candidates_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TaskUnusable, match="set has no candidates of its own; name a first stage"):
        candidates_of(dataset_of(["a"], DOCUMENTS), "own", 2, tmp_path)
    unknown = dataset_of(["a"], DOCUMENTS, candidates={"q0": ["d0", "d9"]})
    with pytest.raises(TaskUnusable, match="candidate 'd9' of the query 'q0' is no document of it"):
        candidates_of(unknown, "own", 2, tmp_path)


def test_a_run_file_gives_candidates_and_queries_without_any_are_said(tmp_path: Path) -> None:
    run = tmp_path / "first.run"
    run.write_text("q0 Q0 d2 1 9.5 name\nq0 Q0 d0 2 9 name\nq0 Q0 d1 3 8 name\n")
    said: list[str] = []
    dataset = dataset_of(["a", "b"], DOCUMENTS)
    candidates = candidates_of(dataset, f"run:{run}", 2, tmp_path, notice=said.append)
    assert dict(candidates) == {"q0": ["d2", "d0"], "q1": []}
    assert said == [
        f"set: 1 of 2 queries have no candidates by run:{run}, and score 0; the first of them is"
        " 'q1'."
    ]
    run.write_text("q0 Q0 d9 1 9.5 name\n")
    with pytest.raises(TaskUnusable, match=r"first\.run:1: .*'d9'"):
        candidates_of(dataset, f"run:{run}", 2, tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bm52", "There is no first stage 'bm52': it is bm25, gme, gme:MODEL, own, run:FILE, or"),
        ("", "There is no first stage ''"),
        ("gme:", "There is no first stage 'gme:'"),
        ("own:it", "There is no first stage 'own:it'"),
        ("a/b@", "There is no first stage 'a/b@'"),
        ("run:nowhere.run", r"The first stage run:nowhere\.run names no file"),
        ("x" * 2_000, "a name of up to 1024 characters"),
    ],
)
def test_a_name_without_sense_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(TaskUnusable, match=sentence):
        candidates_of(dataset_of(["a"], DOCUMENTS), name, 2, tmp_path)


@pytest.mark.parametrize("top_k", [0, -1, 1_001])
def test_top_k_has_bounds(tmp_path: Path, top_k: int) -> None:
    with pytest.raises(TaskUnusable, match="Candidates of a query are 1 to 1,000"):
        candidates_of(dataset_of(["a"], DOCUMENTS), "bm25", top_k, tmp_path)
