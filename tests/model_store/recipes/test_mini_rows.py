"""Rows of gmr-mini show nothing that it is measured on, and BM25 ranks what it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from model_store.recipes.mini.figures import mixed_by_rank
from model_store.recipes.mini.rows import write_data, write_held_out
from model_store.recipes.mini.sources.pictures.named import NamedPicture
from model_store.recipes.mini.texts.measures import Measured
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import Example, Negative, Side, read_examples

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ASKED = Measured("how do I paint a door?", ("Doors are painted with a brush.", "Cakes are baked."))


def row(name: str, query: str, relevant: str, other: str) -> Example:
    return Example(
        id=name,
        instruction=None,
        query=Side(query, None),
        positives=(Side(relevant, None),),
        negatives=(Negative(Side(other, None), "hard"),),
        location="",
        teacher_scores=(1.0, -1.0),
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Four rows, of which three show the held-out question or its answer in other letters."""
    path = tmp_path / "texts.jsonl"
    rows = [
        row("kept", "how do I bake?", "Use an oven.", "Use a saw."),
        row("asked", "How do I paint a door", "Use paint.", "Use a saw."),
        row("answered", "what is painted?", "DOORS are painted, with a brush", "Use a saw."),
        row("near", "what is sawn?", "Use a saw.", "doors are painted with a brush"),
    ]
    write_examples(path, rows)
    return path


def test_a_row_that_shows_a_held_out_question_or_answer_is_left_out(
    texts: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    pictures = named_pictures(tmp_path / "drawn")
    files = write_held_out(data, {"doors": [ASKED]}, pictures, 2)
    assert [row.query.text for row in read_examples(files.texts)] == [ASKED.query]
    held_out = files.everything
    of_text, *of_pictures = read_examples(held_out)
    assert of_text.query.text == ASKED.query
    assert len(of_pictures) == 2
    assert all(example.positives[0].image for example in of_pictures)

    counts = (9, 4, 0)
    write_data(data, texts=texts, pictures=[], held_out=held_out, counts=counts, dev=9)
    rows = list(read_examples(data / "train.jsonl"))
    named = {example.id for example in rows}
    assert named & {"kept", "asked", "answered", "near"} == {"kept"}
    assert all(example.teacher_scores is None for example in rows)
    checked = [Path(sys.executable).with_name("gmr"), "data", "check", data / "train.jsonl"]
    subprocess.run([*checked, "--held-out", held_out, "--retriever", "none"], check=True)


def named_pictures(folder: Path) -> list[NamedPicture]:
    """Of which some are held out, by their titles."""
    folder.mkdir()
    found: list[NamedPicture] = []
    for number in range(60):
        path = folder / f"{number}.png"
        Image.new("RGB", (60, 60), (4 * number, 9, 9)).save(path)
        title = "thing" + LETTERS[number // 26] + LETTERS[number % 26]
        found.append(NamedPicture("packed", path, title))
    return found


def test_a_document_that_bm25_does_not_find_has_no_rank_of_it() -> None:
    # ranks of ours: 2, 1, 3; BM25 finds the first alone
    mixed = mixed_by_rank([2.0, 3.0, 1.0], [4.0, 0.0, 0.0])
    assert mixed == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 63])


def test_without_any_word_in_common_ours_is_the_order() -> None:
    mixed = mixed_by_rank([2.0, 3.0, 1.0], [0.0, 0.0, 0.0])
    assert mixed == pytest.approx([1 / 62, 1 / 61, 1 / 63])
