"""The next gmr-tiny learns a teacher's scores of real texts, and is measured on held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tokenizers import Tokenizer

from model_store.checkpoint import resolve
from model_store.evaluation.tasks.readers.folder import FolderSource
from model_store.families.tokens import TOKENIZER_FILE
from model_store.recipes.tiny.distillation.groups import (
    DOCUMENTS,
    Group,
    Mining,
    as_row,
    texts_to_encode,
)
from model_store.recipes.tiny.distillation.measures import (
    CANDIDATES,
    everyday_questions,
    held_out_groups,
    hits,
    write_task,
)
from model_store.recipes.tiny.distillation.stage import Distillation, distil
from model_store.recipes.tiny.distillation.vectors import TextVectors
from model_store.recipes.tiny.packed_batches import PackedBatcher
from model_store.recipes.tiny.sources.passages import Passage
from model_store.recipes.tiny.start.assembly import assemble
from model_store.recipes.tiny.start.meanings import Meanings
from model_store.recipes.tiny.start.pooling import SEMANTIC
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


@pytest.mark.slow
def test_the_stage_goes_on_where_it_stopped(groups: list[Group], tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / TOKENIZER_FILE))
    batcher = PackedBatcher(resolve(str(TINY)).family, tokenizer, signs=False)
    rng = np.random.default_rng(0)
    size = tokenizer.get_vocab_size()
    vectors = rng.normal(size=(size, SEMANTIC)).astype(np.float32)
    meanings = Meanings(vectors, np.full(size, -1, np.float32))
    network = assemble(tokenizer, meanings, labels=batcher.label_ids, seed=0, layers=4)
    begun = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rows = [as_row(group, number, Random(1)) for number, group in enumerate(groups)]
    settings = Distillation(steps=4, seed=1, tokens=800, warmup=2, save_every=2)
    lines: list[str] = []

    def run(folder: str, stop: int = 0) -> dict[str, torch.Tensor]:
        network.load_state_dict(begun)

        def measure(step: int) -> None:
            if step == stop:
                raise KeyboardInterrupt

        where = tmp_path / folder
        distil(
            network,
            batcher,
            rows,
            settings=settings,
            folder=where,
            report=lines.append,
            measure=measure,
        )
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", stop=2)
    parts = run("parts")
    assert lines == ["distil: goes on after step 2"]
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    kept = [name for name in whole if "visual" in name or "embed_tokens" in name]
    assert kept
    assert all(torch.equal(whole[name], begun[name]) for name in kept)
    moved = {name: float((whole[name] - begun[name]).abs().max()) for name in whole}
    free, careful = (f"model.language_model.layers.{n}.self_attn.o_proj.weight" for n in (1, 2))
    assert moved[free] > moved[careful] > 0
    assert 0 <= hits(network, batcher, everyday_questions()) <= 1
