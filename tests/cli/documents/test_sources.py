"""Documents from arguments, folders, files and standard input; and the places of what is wrong."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.cli.documents.items import Document, Unusable
from service.cli.documents.pictures import Unreadable
from service.cli.documents.rows import Columns, csv_rows, json_rows, line_rows
from service.cli.documents.sources import MAX_DOCUMENTS, Sources, read_documents

PICTURE = BytesIO()
Image.new("RGB", (8, 8), "red").save(PICTURE, "PNG")
LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


def read(*arguments: str, **columns: Any) -> list[Document]:
    return read_documents(Sources(arguments, "text", Columns(**columns), only_texts=False))


def refusal(*arguments: str, **columns: Any) -> str:
    with pytest.raises(Unusable) as refused:
        read(*arguments, **columns)
    return str(refused.value)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def sent(document: Document) -> Any:
    """The item of a request, with its picture."""
    item, picture = document.read()
    if picture is None:
        return item
    return {**item, "image": base64.b64encode(picture).decode()}


def test_arguments_are_texts_unless_they_name_files() -> None:
    Path("a.png").write_bytes(PICTURE.getvalue())
    Path("note.txt").write_text("A note.\n", encoding="utf-8")
    texts = "Close the file.", "a.png b", "what?", "x" * 5000, "nul\0.png x"
    documents = read(*texts, "a.png", "note.txt")

    assert [document.fields.get("text") for document in documents[:5]] == list(texts)
    picture, note = documents[5:]
    assert sent(picture) == {"id": "a.png", "image": base64.b64encode(PICTURE.getvalue()).decode()}
    assert sent(note) == {"id": "note.txt", "text": "A note.\n"}


def test_the_url_of_a_picture_is_a_picture() -> None:
    url = "https://example.com/a.PNG"
    words, picture = read("see https://example.com", url)
    assert sent(words) == {"text": "see https://example.com"}
    assert sent(picture) == {"image": url, "id": url}


@pytest.mark.parametrize("name", ["a.png", "folder/a.JPEG", "rows.jsonl", "notes.md", "t.csv"])
def test_a_file_that_is_not_there_is_never_ranked_as_words(name: str) -> None:
    assert refusal("text", name).startswith(f"{name}: No such file or directory; ")
    only_texts = Sources((name,), "text", Columns(), only_texts=True)
    assert sent(read_documents(only_texts)[0]) == {"text": name}


def test_a_folder_is_its_pictures_in_order() -> None:
    for name in ("b/2.png", "b/1.webp", "a.JPG", "c.txt", ".hidden.png", ".git/x.png"):
        path = Path("pictures") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE.getvalue())
    names = [document.name for document in read("pictures")]
    assert names == ["pictures/a.JPG", "pictures/b/1.webp", "pictures/b/2.png"]

    Path("empty").mkdir()
    assert refusal("empty").startswith("empty: the folder has no pictures (.png")


def test_only_pictures_are_read_as_pictures() -> None:
    Path("secret.png").write_text("token", encoding="utf-8")
    (document,) = read("secret.png")
    with pytest.raises(Unreadable) as error:
        sent(document)
    assert error.value.code == "invalid_image"


def test_a_file_of_another_kind_is_refused() -> None:
    Path("a.bin").write_bytes(b"x")
    assert refusal("a.bin").startswith("a.bin: documents are read from .png")
    Path("a.txt").write_bytes(b"\xff")
    assert refusal("a.txt") == "a.txt: the file is not UTF-8 text."


def test_rows_of_json_are_items() -> None:
    Path("rows").mkdir()
    Path("rows/p.png").write_bytes(PICTURE.getvalue())
    rows = [
        "bare text",
        {"id": "p7", "text": "t", "metadata": {"a": 1}},
        {"id": 3, "image": "p.png"},
        {"image": "data:image/png;base64,AAAA"},
        {"image": "https://host/p.png"},
    ]
    lines = "\n\n".join(map(json.dumps, rows))
    Path("rows/d.jsonl").write_text(f"\ufeff{lines}\n", encoding="utf-8")

    documents = read("rows/d.jsonl")
    picture = base64.b64encode(PICTURE.getvalue()).decode()
    assert [sent(document) for document in documents] == [
        *rows[:2],
        {"id": 3, "image": picture},
        *rows[3:],
    ]
    assert [document.name for document in documents[:3]] == ["rows/d.jsonl, line 1", "p7", "3"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"text":', "d.jsonl, line 2 is not JSON."),
        ("[" * 100_000, "d.jsonl, line 2 is not JSON."),
        ('{"metadata": {"a": NaN}}', "d.jsonl, line 2 is not JSON."),
        ("3", "d.jsonl, line 2 is neither a JSON object nor a string."),
    ],
    ids=["broken", "deep", "constant", "number"],
)
def test_a_broken_line_is_named(line: str, sentence: str) -> None:
    Path("d.jsonl").write_text(f'{{"text": "a"}}\n{line}\n', encoding="utf-8")
    assert refusal("d.jsonl") == sentence


def test_a_field_of_rows_may_be_the_text() -> None:
    row = {"_id": "d1", "title": "T", "text": "body"}
    Path("d.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (document,) = read("d.jsonl", text="text", identifier="_id")
    assert sent(document) == {"text": "body", "id": "d1"}
    assert refusal("d.jsonl", text="body") == (
        "d.jsonl, line 1 has no field 'body'; there are _id, title, text."
    )


def test_a_column_of_a_table() -> None:
    Path("d.csv").write_text('id,text\n1,"two\nlines, quoted"\n2,b\n', encoding="utf-8")
    Path("d.tsv").write_text("text\tid\na, b\t7\n", encoding="utf-8")
    documents = read("d.csv", "d.tsv", text="text", identifier="id")
    assert [sent(document) for document in documents] == [
        {"text": "two\nlines, quoted", "id": "1"},
        {"text": "b", "id": "2"},
        {"text": "a, b", "id": "7"},
    ]


@pytest.mark.parametrize(
    ("content", "column", "sentence"),
    [
        ("id,text\n1,a\n", "txet", "d.csv has no column 'txet'; there are id, text."),
        ("id,text\n1,a\n", None, "d.csv: name the column of texts with --column; there are id,"),
        ("", "text", "d.csv is empty: a table begins with the names of its columns."),
        ("text\n", "text", "d.csv: the file has no documents."),
        ("id,text\n1,a\n2\n", "text", "d.csv, line 3 has 1 cells; the header has 2."),
        ('text\n"a" b\n', "text", "d.csv, line 2 is not well-formed CSV."),
        ('text\n"a\n', "text", "d.csv, line 2 is not well-formed CSV."),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    content: str, column: str | None, sentence: str
) -> None:
    Path("d.csv").write_text(content, encoding="utf-8")
    assert refusal("d.csv", text=column).startswith(sentence)


def test_the_number_of_documents_has_a_bound() -> None:
    Path("d.csv").write_text("text\n" + "a\n" * (MAX_DOCUMENTS + 1), encoding="utf-8")
    assert refusal("d.csv", text="text").startswith("There are more than 200,000 documents")


@given(st.lists(LINE))
def test_each_line_that_is_not_blank_is_a_document(lines: list[str]) -> None:
    stream = BytesIO("\n".join(lines).encode())
    texts = [document.text for document in line_rows(stream, "input")]
    assert texts == [line.strip() for line in lines if line.strip()]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_their_line(content: bytes) -> None:
    for rows in (
        line_rows(BytesIO(content), "input"),
        json_rows(BytesIO(content), "input", Path(), Columns()),
        csv_rows(BytesIO(content), "input", Columns("a"), delimiter=","),
    ):
        sentence = "input"
        try:
            assert all(sent(document) is not None for document in rows)
        except Unusable as refused:
            sentence = str(refused)
        except Unreadable:
            pass
        assert sentence.startswith("input")
