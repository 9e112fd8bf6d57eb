"""Generated rows are what the training job takes: whole, the same for the same seed, and nothing in
them is held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from model_store.errors import DataError
from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.recipes.tiny.rows import NEGATIVES, write_rows
from model_store.synthetic import cells
from model_store.synthetic.texts import passages
from model_store.training.data.rows import Example, Side, read_examples
from model_store.training.data.validation import check

pytestmark = pytest.mark.slow

COUNT = 36


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    write_rows(path, COUNT, names=cells.CELLS, seed=3)
    return path


@pytest.fixture(scope="module")
def examples(path: Path) -> list[Example]:
    return list(read_examples(path))


def sides(example: Example) -> list[Side]:
    return [example.query, *example.positives, *(negative.side for negative in example.negatives)]


def test_the_training_job_finds_nothing_wrong_with_them(path: Path) -> None:
    report = check(path, decode=True)
    assert (report.rows, report.wrong, report.problems) == (COUNT, 0, [])
    assert report.images > COUNT


def test_a_row_has_one_positive_and_as_many_negatives_as_promised(examples: list[Example]) -> None:
    assert {(len(each.positives), len(each.negatives)) for each in examples} == {(1, NEGATIVES)}
    assert [each.id for each in examples] == [f"train/{number}" for number in range(COUNT)]


def test_half_of_them_ask_in_the_default_words(examples: list[Example]) -> None:
    asked = Counter(each.instruction == DEFAULT_INSTRUCTION for each in examples)
    assert COUNT // 4 < asked[True] < 3 * COUNT // 4


def test_no_text_is_held_out(examples: list[Example]) -> None:
    texts = {side.text for each in examples for side in sides(each)}
    assert not texts & set(passages("heldout"))
    assert texts & set(passages("train"))


def test_a_picture_is_named_by_its_content(examples: list[Example]) -> None:
    images = {side.image for each in examples for side in sides(each) if side.image}
    contents = {image.read_bytes() for image in images}
    assert len(contents) == len(images)
    assert {Image.open(image).format for image in images} == {"PNG"}


def test_the_same_name_and_seed_give_the_same_files(path: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", COUNT, names=cells.CELLS, seed=3)
    ours, again = (
        {
            each.relative_to(folder): each.read_bytes()
            for each in folder.rglob("*")
            if each.is_file()
        }
        for folder in (path.parent, tmp_path)
    )
    assert ours == again
    write_rows(tmp_path / "dev.jsonl", COUNT, names=cells.CELLS, seed=3)
    assert (tmp_path / "dev.jsonl").read_bytes() != path.read_bytes().replace(b"train/", b"dev/")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        write_rows(tmp_path / "file" / "train.jsonl", 1, names=["T-T"], seed=3)
