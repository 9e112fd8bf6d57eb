"""Folders in BEIR's layout: what is read, and what is refused before anything is scored."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.evaluation.tasks.opening import open_benchmark
from tests.model_store.evaluation.tasks.folders import (
    DOCUMENTS,
    QRELS,
    write_folder,
    write_lines,
)


def load(name: Path) -> Dataset:
    (task,) = open_benchmark(str(name)).tasks
    (source,) = task.datasets
    return source.load()


def test_a_folder_is_a_table_of_one_row(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop")
    benchmark = open_benchmark(str(folder))
    assert (benchmark.name, benchmark.tasks[0].metric) == ("shop", "ndcg@10")

    dataset = load(folder)
    red = (folder / "images/red.png").read_bytes()
    assert list(dataset.documents.ids) == ["d1", "d2", "d3", "d4", "d5"]
    assert dataset.documents["d1"] == Item("d1", "Red a red square", None)
    assert dataset.documents["d3"] == Item("d3", None, red)
    assert dataset.documents["d4"].text == "a green page"
    assert dataset.documents["d5"] == Item("d5", "", None)
    assert dataset.queries["q2"] == Item("q2", "which colour?", red)
    assert dataset.judgements == {"q2": {"d3": 2}, "q1": {"d1": 1, "d2": 0}}
    assert (dataset.instruction, dataset.candidates) == (None, None)
    assert (dataset.instruction_of("q1"), dataset.instruction_of("q2")) == (None, "Look.")


def test_queries_without_judgements_are_left_out(tmp_path: Path) -> None:
    queries = load(write_folder(tmp_path / "shop")).queries
    assert (list(queries.ids), len(queries), "q3" in queries) == (["q1", "q2"], 2, False)
    with pytest.raises(KeyError):
        queries["q3"]


def test_an_instruction_and_candidates_may_lie_in_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop")
    (folder / "instruction.txt").write_text("\ufeffFind the picture.\r\n", encoding="utf-8")
    (folder / "candidates.trec").write_text(
        "q1 Q0 d2 2 0.5 mine\nq1 Q0 d1 1 0.9 mine\nq3 Q0 d1 1 0.9 mine\n", encoding="utf-8"
    )
    dataset = load(folder)
    assert dataset.candidates == {"q1": ["d1", "d2"], "q2": []}
    assert dataset.instruction_of("q1") == "Find the picture."
    assert dataset.instruction_of("q2") == "Look."


@pytest.mark.parametrize("form", ["TREC", "packed TREC", "BEIR without a header"])
def test_judgements_may_have_other_forms(tmp_path: Path, form: str) -> None:
    folder = write_folder(tmp_path / "shop")
    (folder / "qrels/test.tsv").unlink()
    (folder / "qrels").rmdir()
    trec = "q2 0 d3 2\r\n\r\nq1 0 d1 1\nq1\t0\td2\t-1"
    if form == "TREC":
        (folder / "qrels.txt").write_text("\ufeff" + trec, encoding="utf-8")
    elif form == "packed TREC":
        (folder / "qrels.trec.gz").write_bytes(gzip.compress(trec.encode()))
    else:
        (folder / "qrels.tsv").write_text("q2\td3\t2\nq1\td1\t1\nq1\td2\t-1\n", encoding="utf-8")
    assert load(folder).judgements == {"q2": {"d3": 2}, "q1": {"d1": 1, "d2": -1}}


def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = load(write_folder(tmp_path / "plain"))
    folder = write_folder(tmp_path / "windows")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_bytes(("\ufeff" + text.replace("\n", "\r\n\r\n")).encode())
    windows = load(folder)
    assert windows.digest == plain.digest
    assert windows.documents["d1"] == plain.documents["d1"]


def test_an_index_may_be_copied_to_another_process(tmp_path: Path) -> None:
    documents = load(write_folder(tmp_path / "shop")).documents
    copied = pickle.loads(pickle.dumps(documents))
    assert list(copied.ids) == list(documents.ids)
    assert copied["d4"] == documents["d4"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "a text": lambda folder: write_lines(
        folder / "corpus.jsonl", [{**DOCUMENTS[0], "text": "another"}, *DOCUMENTS[1:]]
    ),
    "a grade": lambda folder: (folder / "qrels/test.tsv").write_text(QRELS.replace("\t2", "\t1")),
    "an instruction": lambda folder: (folder / "instruction.txt").write_text("Look closely."),
    "candidates": lambda folder: (folder / "candidates.trec").write_text("q1 Q0 d1 1 1.0 r"),
    "a picture": lambda folder: (folder / "images/red.png").write_bytes(
        (folder / "images/green.jpg").read_bytes()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_changes_with_what_decides_a_score(tmp_path: Path, change: str) -> None:
    folder = write_folder(tmp_path / "shop")
    before = load(folder).digest
    header, *lines = QRELS.splitlines()
    (folder / "qrels/test.tsv").write_text("\n".join([header, *reversed(lines)]))
    assert load(folder).digest == before
    CHANGES[change](folder)
    assert load(folder).digest != before


def test_a_file_that_changes_after_it_was_checked_is_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop")
    documents = load(folder).documents
    write_lines(folder / "corpus.jsonl", DOCUMENTS[:2])
    with pytest.raises(TaskUnusable, match="has changed since it was first read"):
        documents["d1"]


def test_a_folder_of_folders_is_a_table(tmp_path: Path) -> None:
    for name in ("wordpress", "android"):
        write_folder(tmp_path / "stack" / name)
    (tmp_path / "stack/notes").mkdir()
    benchmark = open_benchmark(str(tmp_path / "stack"))
    assert [task.name for task in benchmark.tasks] == ["android", "wordpress"]
    assert len({task.datasets[0].name for task in benchmark.tasks}) == 2


def test_judgements_for_testing_are_chosen_or_a_file_of_them_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop")
    (folder / "qrels/dev.tsv").write_text("q3\td4\t1\n", encoding="utf-8")
    assert set(load(folder).judgements) == {"q1", "q2"}
    assert load(folder / "qrels/dev.tsv").judgements == {"q3": {"d4": 1}}
    assert open_benchmark(str(folder / "qrels/dev.tsv")).name == "shop-dev"

    (folder / "qrels/test.tsv").rename(folder / "qrels/train.tsv")
    with pytest.raises(TaskUnusable, match=r"several files of judgements; name one: .*dev\.tsv"):
        load(folder)


def documents_of(*rows: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")


def file_of(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no corpus": (
        lambda folder: (folder / "corpus.jsonl").unlink(),
        "there is no corpus.jsonl.",
    ),
    "a packed corpus": (
        lambda folder: (folder / "corpus.jsonl").rename(folder / "corpus.jsonl.gz"),
        "there is no corpus.jsonl. Unpack it first.",
    ),
    "no judgements": (
        lambda folder: (folder / "qrels/test.tsv").unlink(),
        "there are no judgements: qrels/test.tsv is missing.",
    ),
    "no rows": (documents_of(""), "corpus.jsonl: there are no rows."),
    "no JSON": (
        documents_of('{"_id": "d1", "text": "a"}', "[1]"),
        "corpus.jsonl:2: this is not one JSON object in UTF-8.",
    ),
    "no id": (documents_of('{"text": "a"}'), "corpus.jsonl:1: there is no '_id', which is a text."),
    "a long id": (
        documents_of(json.dumps({"_id": "x" * 513, "text": "a"})),
        "corpus.jsonl:1: an id has 1 to 512 characters, none of them NUL.",
    ),
    "an id twice": (
        documents_of(*[json.dumps(row) for row in DOCUMENTS], "", '{"_id": "d2", "text": "b"}'),
        "corpus.jsonl:7: the id 'd2' is that of line 2, too.",
    ),
    "a text of another type": (
        documents_of('{"_id": "d1", "text": 3}'),
        "corpus.jsonl:1: text is no text.",
    ),
    "a misspelt field": (
        documents_of('{"_id": "d1", "text": "a", "images": "images/red.png"}'),
        "corpus.jsonl:1: there is an unknown field 'images': is it 'image'?",
    ),
    "a path out of the folder": (
        documents_of('{"_id": "d1", "image": "../red.png"}'),
        "corpus.jsonl:1: image is a path inside the folder, relative and without '..', and not"
        " '../red.png'.",
    ),
    "a picture that is not there": (
        documents_of('{"_id": "d1", "image": "images/none.png"}'),
        "corpus.jsonl:1: the image 'images/none.png' cannot be read (No such file or directory).",
    ),
    "a folder for a picture": (
        documents_of('{"_id": "d1", "image": "images"}'),
        "corpus.jsonl:1: the image 'images' is no file of 1 to 10485760 bytes.",
    ),
    "a picture of another format": (
        documents_of('{"_id": "d1", "image": "corpus.jsonl"}'),
        "corpus.jsonl:1: the image 'corpus.jsonl' is no PNG, JPEG or WebP.",
    ),
    "a query of nothing": (
        file_of("queries.jsonl", '{"_id": "q1", "text": " "}'),
        "queries.jsonl:1: there is no text, and no image.",
    ),
    "an unknown query": (
        file_of("qrels/test.tsv", QRELS + "q9\td1\t1\n"),
        "qrels/test.tsv:5: there is no query 'q9'.",
    ),
    "an unknown document": (
        file_of("qrels/test.tsv", QRELS + "\nq1\td9\t1\n"),
        "qrels/test.tsv:6: there is no document 'd9'.",
    ),
    "a grade of words": (
        file_of("qrels/test.tsv", "q1\td1\tyes\n"),
        "qrels/test.tsv:1: the grade 'yes' is no integer of 32 bits.",
    ),
    "a grade with a point": (
        file_of("qrels/test.tsv", "q1\td1\t1.0\n"),
        "qrels/test.tsv:1: the grade '1.0' is no integer of 32 bits.",
    ),
    "a judgement twice": (
        file_of("qrels/test.tsv", "q1\td1\t1\nq1\td1\t0\n"),
        "qrels/test.tsv:2: document 'd1' is judged twice for query 'q1'.",
    ),
    "other cells": (
        file_of("qrels/test.tsv", "q1\td1\n"),
        "qrels/test.tsv:1: 2 cells, and a line is a query, an iteration, a document and a grade"
        " (TREC), or without the iteration (BEIR).",
    ),
    "two forms in a file": (
        file_of("qrels/test.tsv", "q1\td1\t1\nq1\t0\td2\t1\n"),
        "qrels/test.tsv:2: 4 cells, and earlier lines have 3.",
    ),
    "a header alone": (
        file_of("qrels/test.tsv", "query-id\tcorpus-id\tscore\n"),
        "qrels/test.tsv: there are no judgements.",
    ),
    "candidates of no document": (
        file_of("candidates.trec", "q1 Q0 d9 1 1.0 r\n"),
        "candidates.trec:1: there is no document 'd9'.",
    ),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_bad_input_is_one_sentence_with_its_place(tmp_path: Path, problem: str) -> None:
    folder = write_folder(tmp_path / "shop")
    change, sentence = REFUSED[problem]
    change(folder)
    with pytest.raises(TaskUnusable) as refused:
        load(folder)
    place = f"{folder}: " if sentence.startswith("there") else f"{folder}/"
    assert str(refused.value) == place + sentence


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shop")
    outside = tmp_path / "secret.png"
    outside.write_bytes((folder / "images/red.png").read_bytes())
    (folder / "images/red.png").unlink()
    (folder / "images/red.png").symlink_to(outside)
    with pytest.raises(TaskUnusable, match=r"'images/red\.png' is a link out of the folder"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["nowhere", "beir:scifcat", "mteb:SciFcat", "mrb:T-Q", "x" * 5_000]
)
def test_an_unknown_name_is_a_sentence(name: str) -> None:
    with pytest.raises(TaskUnusable) as refused:
        open_benchmark(name)
    assert str(refused.value).endswith((".", "?"))
    assert "\n" not in str(refused.value)
