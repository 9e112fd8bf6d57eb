"""A folder of judged queries: what is in it is what a dataset has, and a wrong row is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.evaluation.tasks.opening import open_benchmark
from model_store.evaluation.tasks.readers.judged_folder import JUDGEMENTS, JudgedFolder
from model_store.evaluation.tasks.readers.judged_rows import MAX_DOCUMENTS, parse_judged_row

ROW = {"id": "q", "query": "shoes", "documents": [{"text": "red shoes", "grade": 2}, "a hat"]}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


def write(folder: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / JUDGEMENTS).write_text("\n".join(lines), encoding="utf-8")
    return folder


def loaded(folder: Path) -> Dataset:
    (task,) = open_benchmark(str(folder)).tasks
    (source,) = task.datasets
    return source.load()


def test_a_row_is_a_query_with_its_candidates(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    picture = {"text": "boots", "image": "images/a.png", "grade": 1, "metadata": {"price": 3}}
    row = {"id": "a/b", "query": {"image": "images/a.png"}, "documents": [picture, "a hat"]}
    data = loaded(write(tmp_path, {**row, "instruction": "Find boots."}, "", {**ROW, "id": 7}))

    assert data.queries.ids == ("a/b", "7")
    assert data.candidates == {"a/b": ["a/b/1", "a/b/2"], "7": ["7/1", "7/2"]}
    assert data.judgements == {"a/b": {"a/b/1": 1}, "7": {"7/1": 2}}
    assert data.instruction_of("a/b") == "Find boots."
    assert data.instruction_of("7") is None

    image = (tmp_path / "images" / "a.png").read_bytes()
    assert data.queries["a/b"] == Item("a/b", None, image)
    assert data.documents["a/b/1"] == Item("a/b/1", "boots", image)
    assert data.documents["7/2"] == Item("7/2", "a hat", None)
    assert "7/2" in data.documents
    assert not {"7/3", "7/0", "7/x", "8/1", "7"} & set(data.documents.ids)
    assert all(each not in data.documents for each in ("7/3", "7/0", "7/x", "8/1", "7", 7))


def test_clicks_are_grades_of_one_and_rows_without_any_are_left_out(tmp_path: Path) -> None:
    clicked = [{"text": "a", "clicks": 0}, {"text": "b", "clicks": 9}, {"text": "c"}]
    none = [{"text": "a", "clicks": False}, "b"]
    rows = [{"query": "x", "documents": clicked}, {"query": "y", "documents": none}]
    folder = JudgedFolder(write(tmp_path, *rows))

    assert (folder.kind, len(folder), folder.without_relevant) == ("clicks", 1, 1)
    assert folder.dataset("d").judgements == {"1": {"1/2": 1}}
    assert folder.positions.shown[:4] == [2, 2, 1, 0]
    assert folder.positions.relevant[:4] == [0, 1, 0, 0]


def test_the_digest_changes_with_every_row_and_picture(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    row: dict[str, Any] = {**ROW, "documents": [{"image": "a.png", "grade": 1}, "b"]}
    variants = [row, {**row, "query": "boots"}, {**row, "instruction": "i"}]
    variants.append({**row, "documents": [{"image": "a.png", "grade": 2}, "b"]})
    Image.new("RGB", (4, 4)).save(image)
    digests = [loaded(write(tmp_path, each)).digest for each in variants]
    Image.new("RGB", (4, 5)).save(image)
    digests.append(loaded(write(tmp_path, row)).digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "no|not one JSON object"),
        ("[]", "not one JSON object"),
        ({**ROW, "query": None}, "there is no query"),
        ({**ROW, "query": " "}, "query has neither a text nor an image"),
        ({**ROW, "query": 3}, "query is neither a text nor an object"),
        ({**ROW, "documents": []}, "documents is no list of 1 to"),
        ({**ROW, "documents": ["a"] * (MAX_DOCUMENTS + 1)}, "documents is no list"),
        ({**ROW, "documents": ["a", {}]}, r"documents\[1\] has neither"),
        ({**ROW, "documents": [{"text": "a", "grad": 1}]}, "unknown field 'grad'"),
        ({**ROW, "documents": [{"text": "a", "grade": 1.5}]}, r"documents\[0\].grade is no whole"),
        ({**ROW, "documents": [{"text": "a", "grade": True}]}, "grade is no whole number"),
        ({**ROW, "documents": [{"text": "a", "grade": 101}]}, "grade is no whole number"),
        ({**ROW, "documents": [{"text": "a", "clicks": -1}]}, "clicks is no number"),
        ({**ROW, "documents": [{"text": "a", "clicks": 1, "grade": 1}]}, "has a grade and clicks"),
        (
            {**ROW, "documents": [{"text": "a", "clicks": 1}, {"text": "b", "grade": 1}]},
            "there are grades and clicks",
        ),
        ({**ROW, "documents": [{"image": "../a.png"}]}, "image is a path inside the folder"),
        ({**ROW, "documents": [{"image": "a.png"}]}, r"the image 'a.png' cannot be read"),
        ({**ROW, "documents": [{"text": 3}]}, "text is no text"),
        ({**ROW, "id": ""}, "id is a text"),
        ({**ROW, "clicks": 3}, "the row has an unknown field 'clicks'"),
        (ROW, "the id 'q' is that of another row"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: object, sentence: str) -> None:
    with pytest.raises(TaskUnusable, match=rf"judgements\.jsonl:2: .*({sentence}).*\.$"):
        JudgedFolder(write(tmp_path, ROW, row))


def test_a_file_has_grades_or_clicks(tmp_path: Path) -> None:
    clicks = {"query": "x", "documents": [{"text": "a", "clicks": 1}]}
    with pytest.raises(TaskUnusable, match=r"jsonl:2: there are grades and clicks"):
        JudgedFolder(write(tmp_path, ROW, clicks))


def test_a_file_without_anything_relevant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskUnusable, match="no rows with a relevant document"):
        JudgedFolder(write(tmp_path, {"query": "x", "documents": ["a"]}))


@settings(max_examples=60, deadline=None)
@given(
    query=texts,
    documents=st.lists(st.tuples(texts, st.one_of(st.none(), st.integers(-3, 100))), min_size=1),
)
def test_any_text_and_grade_reads_back(query: str, documents: list[tuple[str, int | None]]) -> None:
    given = [{"text": text, "grade": grade} for text, grade in documents]
    line = json.dumps({"query": {"text": query}, "documents": given}).encode()
    row = parse_judged_row(line, "f:1")

    assert row.query.text == query
    read = [(document.item.text, document.grade) for document in row.documents]
    assert read == [(text, grade or 0) for text, grade in documents]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_row_are_one_sentence(line: bytes) -> None:
    with pytest.raises(TaskUnusable, match=r"^f:1: [^\n]+\.$"):
        parse_judged_row(line, "f:1")
