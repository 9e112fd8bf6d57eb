"""gmr-mini's tokens learn a teacher's meanings of real texts; held-out ones measure it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer

from model_store.evaluation.tasks.readers.folder import FolderSource
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.mini.sources.passages import Passage
from model_store.recipes.mini.texts.averages import Averages, train_averages
from model_store.recipes.mini.texts.groups import (
    DOCUMENTS,
    Group,
    Mining,
    as_row,
    texts_to_encode,
)
from model_store.recipes.mini.texts.meanings import Meanings
from model_store.recipes.mini.texts.measures import (
    CANDIDATES,
    everyday_questions,
    held_out_groups,
    write_task,
)
from model_store.recipes.mini.texts.vectors import TextVectors
from model_store.training.data.identity import normalize_text
from model_store.training.data.row_files import write_examples
from model_store.training.data.rows import read_examples
from tests.conftest import TINY

THINGS = ("knob", "lamp", "door", "wheel", "list", "file", "cake", "boat", "tree", "coin")
DEEDS = ("turn", "paint", "sell", "count", "hide", "clean", "lift", "burn")


def passages() -> list[Passage]:
    """Of two sources, some of them held out."""
    found: list[Passage] = []
    for thing in THINGS:
        for deed in DEEDS:
            text = f"{thing}: It is easy to {deed} a {thing} with the {deed}er. Ask for help."
            questions = (f"how to {deed} a {thing}",)
            found.append(Passage("manpages", f"{deed}-{thing}.1", text, questions))
            sense = f"{thing} {deed}er: a tool that can {deed} the {thing}"
            named = (f"{thing} {deed}er", f"a tool that can {deed} the {thing}")
            found.append(Passage("wordnet-base", f"{thing} {deed}er", sense, named))
    return found


class Teacher:
    """The mean of its words' vectors; it counts its texts."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.floating]:
        self.encoded += len(texts)
        rows: list[npt.NDArray[np.floating]] = []
        for text in texts:
            words = [np.random.default_rng(list(word.encode())) for word in text.lower().split()]
            mean = np.mean([word.normal(size=16) for word in words], axis=0)
            rows.append(mean / np.linalg.norm(mean))
        return np.stack(rows)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> TextVectors:
    vectors = TextVectors(tmp_path_factory.mktemp("vectors"))
    vectors.add(texts_to_encode(passages()), Teacher().encode)
    return vectors


@pytest.fixture(scope="module")
def groups(vectors: TextVectors) -> list[Group]:
    return list(Mining(passages(), vectors).groups(60, seed=3))


def test_no_text_is_encoded_twice(tmp_path: Path) -> None:
    teacher = Teacher()
    TextVectors(tmp_path).add(["one", "two", "one"], teacher.encode)
    later = TextVectors(tmp_path)
    later.add(["two", "three words here"], teacher.encode)
    assert teacher.encoded == 3
    both = TextVectors(tmp_path).of(["three words here", "one"])
    assert np.allclose(both, teacher.encode(["three words here", "one"]), atol=1e-3)
    assert "two" in later
    assert "four" not in later


def test_groups_have_distinct_documents_and_none_that_is_held_out(groups: list[Group]) -> None:
    held: set[str] = set()
    for passage in passages():
        if passage.held_out:
            held |= {passage.text, *passage.questions}
    assert held
    for group in groups:
        assert len(set(group.documents)) == DOCUMENTS
        assert not held & {group.query, *group.documents}
    assert any(group.query.startswith("how to") for group in groups)


def test_a_text_that_a_held_out_document_has_too_is_left_out(vectors: TextVectors) -> None:
    held = next(passage for passage in passages() if passage.held_out)
    document = next(name for name in ("a", "b", "c") if not Passage("x", name, "").held_out)
    again = Passage("x", document, held.text.upper(), ("SHOUTED",))
    vectors.add([again.text, "SHOUTED"], Teacher().encode)
    mined = Mining([*passages(), again], vectors).groups(60, seed=4)
    assert all(again.text not in group.documents for group in mined)


def test_a_group_has_no_text_twice_in_other_letters(vectors: TextVectors) -> None:
    shouted = [
        Passage(passage.source, passage.document, passage.text.upper(), ())
        for passage in passages()
        if passage.source == "manpages" and not passage.held_out
    ]
    vectors.add(texts_to_encode(shouted), Teacher().encode)
    for group in Mining([*passages(), *shouted], vectors).groups(60, seed=5):
        assert len(set(map(normalize_text, group.documents))) == DOCUMENTS


def test_rows_are_read_by_the_training_job(groups: list[Group], tmp_path: Path) -> None:
    rows = [as_row(group, number, Random(1)) for number, group in enumerate(groups)]
    write_examples(tmp_path / "rows.jsonl", rows)
    for row, group in zip(read_examples(tmp_path / "rows.jsonl"), groups, strict=True):
        assert row.query.text == group.query
        assert row.teacher_scores is not None
        assert row.teacher_scores[0] == pytest.approx(20 * (group.cosines[0] - 0.4))


def test_held_out_groups_are_a_task(tmp_path: Path) -> None:
    measured = held_out_groups(passages())
    (kind,) = measured
    assert kind == "word of a definition"
    write_task(tmp_path, measured[kind])
    task = FolderSource("held out", tmp_path, tmp_path / "qrels" / "test.tsv").load()
    assert len(task.queries) == len(measured[kind])
    assert task.candidates is not None
    assert all(len(group.documents) <= CANDIDATES for group in measured[kind])
    everyday = everyday_questions()
    assert len(everyday) == 10
    assert all(len(set(group.documents)) == 5 for group in everyday)


def test_means_of_texts_come_near_the_teachers_vectors(
    groups: list[Group], vectors: TextVectors
) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    size = tokenizer.get_vocab_size()
    start = np.random.default_rng(0).normal(size=(size, 48)).astype(np.float32)
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    start[0] = 0
    before = Meanings(start, np.full(size, -1, np.float32))
    rows = [as_row(group, number, Random(1)) for number, group in enumerate(groups)]

    def teacher(texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(vectors.of(texts))

    settings = Averages(steps=150, seed=1, rows=16, rate=5e-3)
    after = train_averages(
        before, tokenizer, rows, teacher, settings=settings, report=lambda line: None
    )
    lengths = np.linalg.norm(after.vectors, axis=1)
    assert lengths[1:] == pytest.approx(1, abs=1e-4)
    assert not lengths[0]
    assert after.log_weights.max() <= 0

    def agreement(meanings: Meanings) -> float:
        """Of the means' cosines with the teacher's."""
        texts = sorted({text for group in groups for text in (group.query, *group.documents)})
        means = np.stack([_mean(meanings, tokenizer, text) for text in texts])
        wanted = vectors.of(texts)
        return float(np.corrcoef((means @ means.T).ravel(), (wanted @ wanted.T).ravel())[0, 1])

    assert agreement(after) > agreement(before) + 0.05


def _mean(meanings: Meanings, tokenizer: Tokenizer, text: str) -> npt.NDArray[np.floating]:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    mean = np.exp(meanings.log_weights[ids]) @ meanings.vectors[ids]
    return np.asarray(mean / np.linalg.norm(mean))
