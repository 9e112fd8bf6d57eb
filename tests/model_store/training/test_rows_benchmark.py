"""Rows of `gmr convert` as a benchmark of their own documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.training.rows_benchmark import open_rows
from tests.model_store.training.rows import draw, write_rows

ROWS = [
    {"query": "red?", "positives": ["red"], "negatives": ["blue", {"text": "green"}]},
    {
        "id": "look",
        "instruction": "Find the colour.",
        "query": {"text": "which?", "image": "red.png"},
        "positives": ["red", {"image": "red.png"}],
        "negatives": [{"image": "blue.png", "text": "a square"}],
    },
]


def load(path: Path) -> Dataset:
    (task,) = open_rows(path).tasks
    (source,) = task.datasets
    return source.load()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for colour in ("red", "blue"):
        draw(tmp_path / f"{colour}.png", colour)
    return write_rows(tmp_path / "heldout.jsonl", ROWS)


def test_the_documents_of_a_row_are_its_candidates_and_positives_lose_ties(path: Path) -> None:
    benchmark = open_rows(path)
    assert (benchmark.name, benchmark.tasks[0].metric) == ("heldout", "ndcg@10")

    dataset = load(path)
    assert list(dataset.queries.ids) == ["row 1", "look"]
    assert dataset.candidates is not None
    assert dict(dataset.candidates) == {
        "row 1": ["1/0", "1/1", "1/2"],
        "look": ["2/0", "2/1", "2/2"],
    }
    assert dataset.judgements == {"row 1": {"1/2": 1}, "look": {"2/1": 1, "2/2": 1}}
    assert (dataset.instruction_of("row 1"), dataset.instruction_of("look")) == (
        None,
        "Find the colour.",
    )


def test_items_are_read_by_their_ids(path: Path) -> None:
    dataset = load(path)
    red, blue = [(path.parent / f"{colour}.png").read_bytes() for colour in ("red", "blue")]
    assert list(dataset.documents.ids) == ["1/0", "1/1", "1/2", "2/0", "2/1", "2/2"]
    assert dataset.documents["1/2"] == Item("1/2", "red", None)
    assert dataset.documents["2/0"] == Item("2/0", "a square", blue)
    assert dataset.documents["2/2"] == Item("2/2", None, red)
    assert dataset.queries["look"] == Item("look", "which?", red)
    assert [item_id in dataset.documents for item_id in ("1/3", "3/0", "0/0", "1/00", "x")] == [
        False
    ] * 5


def test_the_digest_is_of_the_contents_and_not_of_the_name(path: Path) -> None:
    before = load(path).digest
    assert load(write_rows(path.with_name("other.jsonl"), ROWS)).digest == before

    changed = [ROWS[0], {**ROWS[1], "positives": ["red"]}]
    assert load(write_rows(path, changed)).digest != before


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {**ROWS[0], "negatives": []},
            "there is no negative to rank the positives against, and no",
        ),
        ({**ROWS[0], "query": {"image": "none.png"}}, "none.png"),
        ({**ROWS[1]}, "the id 'look' is line 2's already."),
        ({**ROWS[0], "positives": []}, "there are 0 positives, and there must be 1 to 1000."),
    ],
)
def test_bad_rows_are_a_sentence_with_their_line(
    path: Path, row: dict[str, object], sentence: str
) -> None:
    path.write_text(path.read_text(encoding="utf-8") + json.dumps(row), encoding="utf-8")
    with pytest.raises(TaskUnusable) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}:3: ")
    assert sentence in str(refused.value)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TaskUnusable, match="There is no file"):
        open_rows(tmp_path / "rows.jsonl")


CORPUS = [
    {"id": "d1", "text": "blue"},
    {"id": "d2", "text": "red", "image": "red.png"},
    {"id": "d3", "image": "blue.png"},
    {"id": "d4", "text": "red"},
]
CONVERTED = [
    {"id": "q1", "query": "red?", "positives": ["red", {"text": "red", "image": "red.png"}]},
    {"id": "q2", "query": {"image": "red.png"}, "positives": [{"image": "blue.png"}]},
]


def test_rows_without_negatives_are_judgements_of_the_corpus_beside_them(path: Path) -> None:
    write_rows(path, CONVERTED)
    corpus = write_rows(path.with_name("heldout.corpus.jsonl"), CORPUS)
    dataset = load(path)
    assert list(dataset.documents.ids) == ["d1", "d2", "d3", "d4"]
    assert dataset.judgements == {"q1": {"d4": 1, "d2": 1}, "q2": {"d3": 1}}
    assert dataset.candidates is None
    blue = (path.parent / "blue.png").read_bytes()
    assert dataset.documents["d3"] == Item("d3", None, blue)
    assert "d5" not in dataset.documents

    write_rows(corpus, [*CORPUS, {"id": "d5", "text": "grey"}])
    assert load(path).digest != dataset.digest


def test_texts_are_read_without_their_images(path: Path) -> None:
    of_rows = load(path)
    write_rows(path.with_name("beside.jsonl"), CONVERTED)
    write_rows(path.with_name("beside.corpus.jsonl"), CORPUS)
    of_corpus = load(path.with_name("beside.jsonl"))
    for colour in ("red", "blue"):
        (path.parent / f"{colour}.png").unlink()

    assert of_rows.queries.text("look") == "which?"
    assert [of_rows.documents.text(each) for each in ("2/0", "2/1", "1/2")] == [
        "a square", "red", "red",
    ]  # fmt: skip
    assert [of_corpus.documents.text(each) for each in ("d2", "d3")] == ["red", None]
    with pytest.raises(TaskUnusable):
        of_corpus.documents["d2"]


@pytest.mark.parametrize(
    ("documents", "sentence"),
    [
        (CORPUS[:3], "heldout.jsonl:1: positives[0] is no document of heldout.corpus.jsonl."),
        ([*CORPUS, CORPUS[1]], "heldout.corpus.jsonl:5: the id 'd2' is that of line 2, too."),
        (
            [*CORPUS, {"id": "d5", "image": "none.png"}],
            "heldout.corpus.jsonl:5: the image 'none.png' cannot be read (No such file or"
            " directory).",
        ),
        ([*CORPUS, {"id": "d5"}], "heldout.corpus.jsonl:5: the document is empty"),
    ],
)
def test_a_corpus_that_does_not_fit_its_rows_is_a_sentence(
    path: Path, documents: list[dict[str, str]], sentence: str
) -> None:
    write_rows(path, CONVERTED)
    write_rows(path.with_name("heldout.corpus.jsonl"), documents)
    with pytest.raises(TaskUnusable) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path.parent}/{sentence}")
