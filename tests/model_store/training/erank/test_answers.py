"""Generated answers beside rows: files, refusals with their places, and the consensus of several
generations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.errors import DataError
from model_store.families.readout import GeneratedScore
from model_store.training.data.rows import read_examples
from model_store.training.erank.answers import (
    GeneratedAnswer,
    matched,
    pair_key,
    read_answers,
    write_answers,
)
from model_store.training.erank.consensus import (
    Chosen,
    Generations,
    choose,
    nearest,
    read_generations,
)

READOUT = GeneratedScore(lowest=0, highest=10, max_tokens=2048)
ROWS = [
    {"id": "a", "query": "green tea", "positives": ["tea is green"], "negatives": ["red wine"]},
    {"id": "b", "query": "red wine", "positives": ["wine, red"], "negatives": ["tea", "milk"]},
]


def written(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", list(ROWS))


def answer(**changes: object) -> dict[str, object]:
    return {"id": "a", "document": 0, "thought": "both words", "score": 9} | changes


def refused(path: Path, rows: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(matched(rows, read_answers(path, READOUT)))
    return str(caught.value)


def test_answers_come_back_as_they_were_written_and_by_row(tmp_path: Path, rows: Path) -> None:
    example, *_ = read_examples(rows)
    key = pair_key(example.query, example.documents[1])
    answers = [
        GeneratedAnswer("b", 2, "none of them", 0),
        GeneratedAnswer("a", 1, 'neither "word"\n', 1, key),
        GeneratedAnswer("a", 0, "both", 10),
    ]
    path = tmp_path / "answers.jsonl.gz"
    assert write_answers(path, answers) == 3
    found = [
        (example.id, [(each.document, each.score) for each in own])
        for example, own in matched(rows, read_answers(path, READOUT))
    ]
    assert found == [("a", [(0, 10), (1, 1)]), ("b", [(2, 0)])]
    assert answers[0].text == "<think>none of them</think><answer>0</answer>"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("no JSON", "2: this is not one JSON object in UTF-8."),
        (answer(scores=3), "2: the row has an unknown field 'scores': is it 'score'?"),
        ({"id": "a", "document": 0, "thought": "x"}, "2: the row has no 'score'."),
        (answer(score=11), "2: score is 11, and a number from 0 to 10 is asked for."),
        (answer(score=-1), "2: score is -1, and"),
        (answer(score="7"), "2: score must be a number, not a text."),
        (answer(document=-1), "2: document must be a number from 0 to 1999."),
        (answer(document=5), "2: row 'a' has 2 documents, and no number 5."),
        (answer(id="c"), "2: rows.jsonl has no row 'c'."),
        (answer(id=""), "2: the id must have 1 to 256 characters."),
        (answer(thought="x" * 20_001), "2: thought has 20001 characters, and 20000 are allowed."),
        (answer(thought="a</think>b"), "2: thought has </think>, which would end it"),
        (answer(thought="<answer>1"), "2: thought has <answer>"),
        (answer(pair="0" * 32), "2: the answer is to another query or document than the row at"),
        (answer(document=1, score=2), "2: "),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, rows: Path, wrong: object, said: str
) -> None:
    path = written(tmp_path / "answers.jsonl", [answer(document=1), wrong])
    assert f"answers.jsonl:{said}" in refused(path, rows)


def test_generations_are_read_or_refused_with_their_line(tmp_path: Path) -> None:
    row = {"id": "a", "document": 0, "generations": ["<think>x</think><answer>1</answer>"]}
    path = written(tmp_path / "generations.jsonl", [row, row | {"document": 1}])
    assert [each.document for each in read_generations(path)] == [0, 1]
    for wrong, said in (
        (row | {"generations": []}, "there are 0 generations, and there must be 1 to 64."),
        (row | {"generations": ["x" * 80_001]}, "a generation has 80001 characters"),
        (row, "line 1 has this pair's generations already."),
    ):
        with pytest.raises(DataError, match=r"generations.jsonl:2: ") as caught:
            list(read_generations(written(path, [row, wrong])))
        assert said in str(caught.value)


def test_the_generation_nearest_to_the_mean_is_kept() -> None:
    assert nearest([("a", 2), ("b", 9), ("c", 8)]) == ("c", 8)  # mean 6.33
    assert nearest([("a", 4), ("b", 6)]) == ("a", 4)  # equally near: the first
    assert nearest([("a", 7)]) == ("a", 7)


@given(st.lists(st.integers(0, 10), min_size=1, max_size=9))
def test_no_generation_is_nearer_than_the_one_that_is_kept(scores: list[int]) -> None:
    mean = sum(scores) / len(scores)
    _, kept = nearest([("", score) for score in scores])
    assert abs(kept - mean) == min(abs(score - mean) for score in scores)


def test_unusable_generations_are_dropped_and_counted() -> None:
    texts = [
        "<think>ok</think><answer>4</answer>",
        "<think>no number</think><answer>high</answer>",
        "<answer>4</answer>",
        "<think>too " + "long " * 40 + "</think><answer>10</answer>",
        "<think>out of bounds</think><answer>12</answer>",
        "<think>a <answer>tag</think><answer>3</answer>",
    ]
    pairs = [Generations("a", 0, texts), Generations("a", 1, texts[1:2])]
    counts = Chosen()
    (found,) = choose(pairs, READOUT, lambda text: len(text.split()), 20, counts)
    assert (found.document, found.thought, found.score) == (0, "ok", 4)
    assert (counts.pairs, counts.generations, counts.lost) == (2, 7, 1)
    assert (counts.unscored, counts.too_long, counts.scores) == (5, 1, {4: 1})
