"""Generated examples: made by a seed, split by content, with one relevant document each."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from random import Random

import numpy as np
import pytest
from PIL import Image

from model_store.families.gmr import DEFAULT_INSTRUCTION
from model_store.synthetic import cells, facts, lexical, pages, scenes
from model_store.synthetic.drawing import FIGURES, Page, draw_page
from model_store.synthetic.examples import Example, Sampler, Side, split_of
from model_store.synthetic.pictures import fitted
from model_store.synthetic.texts import Split, passages

pytestmark = pytest.mark.slow

SPLITS: tuple[Split, Split] = ("train", "heldout")
NEGATIVES = 7
MODALITIES = {"T": [str], "I": [Image.Image], "VD": [Image.Image], "IT": [Image.Image, str]}


def seeds(count: int) -> Iterator[tuple[Random, Split]]:
    for seed in range(count):
        for split in SPLITS:
            yield Random(f"{split}/{seed}"), split


def digest(example: Example) -> str:
    """A digest of an example's texts and pictures."""
    content = hashlib.sha256(
        repr((example.cell, example.instruction, sorted(example.evidence))).encode()
    )
    for part in parts_of(example):
        if isinstance(part, str):
            content.update(part.encode())
        else:
            content.update(part.tobytes() + repr(sorted(part.info["words"])).encode())
    return content.hexdigest()


def parts_of(example: Example) -> list[str | Image.Image]:
    """The texts and pictures of all sides, in order."""
    return list(chain(example.query, *example.documents))


def words_of(side: Side) -> list[frozenset[str]]:
    return [part.info["words"] for part in side if not isinstance(part, str)]


@pytest.mark.parametrize("cell", cells.CELLS)
class TestEveryCell:
    """Properties of all nine cells."""

    def test_the_same_seed_gives_the_same_example(self, cell: str) -> None:
        for split in SPLITS:
            one, again, other = (
                digest(cells.sample(cell, Random(seed), split, NEGATIVES)) for seed in (3, 3, 4)
            )
            assert one == again != other

    def test_modalities_are_those_of_its_name(self, cell: str) -> None:
        query, document = cell.split("-")
        for rng, split in seeds(10):
            example = cells.sample(cell, rng, split, NEGATIVES)
            assert list(map(kind_of, example.query)) == MODALITIES[query]
            kinds = [list(map(kind_of, shown)) for shown in example.documents]
            assert kinds == [MODALITIES[document]] * (NEGATIVES + 1)

    def test_it_has_as_many_documents_as_asked_for(self, cell: str) -> None:
        for negatives in (1, 2, 19):
            assert (
                len(cells.sample(cell, Random(1), "heldout", negatives).documents) == negatives + 1
            )

    def test_it_asks_with_its_own_instruction_or_the_default(self, cell: str) -> None:
        assert cells.sample(cell, Random(1), "train", 1).instruction == cells.INSTRUCTIONS[cell]
        assert (
            cells.sample(cell, Random(1), "train", 1, plain=True).instruction == DEFAULT_INSTRUCTION
        )

    def test_its_pictures_need_no_resizing(self, cell: str) -> None:
        example = cells.sample(cell, Random(5), "heldout", NEGATIVES)
        for part in parts_of(example):
            if not isinstance(part, str):
                assert np.array_equal(fitted(part), np.asarray(part))


def kind_of(part: str | Image.Image) -> type:
    return str if isinstance(part, str) else Image.Image


@pytest.mark.parametrize("cell", [cell for cell in cells.CELLS if cell.endswith("T")])
def test_a_relevant_text_says_some_of_the_evidence(cell: str) -> None:
    for seed in range(20):
        example = cells.sample(cell, Random(seed), "heldout", NEGATIVES)
        text = " ".join(part for part in example.documents[0] if isinstance(part, str))
        assert set(lexical.terms(text)) & example.evidence


class TestOneRelevantDocument:
    """Only the first document satisfies its query."""

    @pytest.mark.parametrize(
        ("task", "split"),
        [
            (lexical.passages_task, "heldout"),
            (lexical.passages_task, "train"),
            (lexical.words_task, "train"),
            (lexical.names_task, "train"),
        ],
    )
    def test_of_texts_only_it_has_all_the_words(self, task: Sampler, split: Split) -> None:
        for seed in range(100):
            (query,), documents = task(Random(seed), split, NEGATIVES)
            terms = [set(lexical.terms(str(document[0]))) for document in documents]
            shared = set(lexical.terms(str(query))) & terms[0]
            assert shared
            assert [shared <= others for others in terms] == [True] + [False] * NEGATIVES

    def test_of_scenes_only_it_is_wanted(self) -> None:
        sampler = scenes.captions(lambda want, rng: (want,), lambda scene, rng: (scene,))
        for rng, split in seeds(100):
            (want,), documents = sampler(rng, split, NEGATIVES)
            assert [want.met_by(scene) for (scene,) in documents] == [True] + [False] * NEGATIVES
            assert split_of(sorted(documents[0][0].groups)) == split

    def test_of_likenesses_only_it_is_the_same(self) -> None:
        sampler = scenes.same_scene(lambda scene, rng: (scene,))
        for rng, split in seeds(50):
            (picture,), documents = sampler(rng, split, NEGATIVES)
            shown = [sorted(scene.groups) for (scene,) in documents]
            assert shown.count(shown[0]) == 1
            assert words_of((picture,)) == words_of((scenes.picture(documents[0][0], rng),))

    def test_of_modified_pictures_only_it_has_the_change(self) -> None:
        for rng, split in seeds(50):
            (seen, change), documents = scenes.modified(rng, split, NEGATIVES)
            (before,), (wanted, *others) = (
                words_of((seen,)),
                [words_of(document)[0] for document in documents],
            )
            assert wanted not in others
            assert before in others
            assert (wanted - before) & set(lexical.terms(str(change)))

    def test_of_facts_only_it_is_about_both_thing_and_aspect(self) -> None:
        sampler = facts.facts(lambda fact, rng: (fact,), lambda fact, rng: (fact,))
        for rng, split in seeds(100):
            (fact,), documents = sampler(rng, split, NEGATIVES)
            assert [other == fact for (other,) in documents] == [True] + [False] * NEGATIVES
            assert split_of((fact.thing.colour, fact.thing.shape, fact.aspect)) == split

    def test_of_pages_only_it_has_the_headline(self) -> None:
        for rng, split in seeds(20):
            (query,), documents = pages.text_to_page(rng, split, NEGATIVES)
            asked = set(lexical.terms(str(query))) & set(pages.HEADLINES)
            assert len(asked) == 2
            assert [asked <= words_of(document)[0] for document in documents] == [True] + [
                False
            ] * NEGATIVES


class TestParts:
    """Training and held-out data."""

    def test_no_passage_is_in_both(self) -> None:
        train, heldout = (set(passages(split)) for split in SPLITS)
        assert not train & heldout
        assert 0.09 < len(heldout) / (len(train) + len(heldout)) < 0.16

    def test_passages_are_running_english_of_80_to_600_characters(self) -> None:
        for split in SPLITS:
            assert passages(split) == tuple(sorted(set(passages(split))))
            assert all(
                80 <= len(text) < 600 and text.isascii() and text == " ".join(text.split())
                for text in passages(split)
            )

    @pytest.mark.parametrize("split", SPLITS)
    def test_passages_asked_and_told_are_of_the_part_asked_for(self, split: Split) -> None:
        for seed in range(30):
            _, documents = lexical.passages_task(Random(seed), split, NEGATIVES)
            assert {document[0] for document in documents} <= set(passages(split))

    def test_drawn_scenes_and_pages_are_of_the_part_asked_for(self) -> None:
        for rng, split in seeds(100):
            assert split_of(sorted(scenes.any_scene(rng, split).groups)) == split
            assert split_of(pages.any_page(rng, split).headline) == split

    def test_one_description_in_eight_is_held_out(self) -> None:
        held = sum(split_of(("thing", number)) == "heldout" for number in range(8000))
        assert 850 < held < 1150


@pytest.mark.parametrize("headline", pages.HEADLINES)
def test_a_headline_fits_its_page(headline: str) -> None:
    for number, figure in enumerate(FIGURES):
        page = Page((headline, headline), figure, 2029)
        drawn = np.asarray(draw_page(page, Random(f"{headline}/{number}")))
        edges = (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])
        assert all((edge == 255).all() for edge in edges)


def test_another_process_makes_the_same_examples() -> None:
    program = (
        "from random import Random\n"
        "from model_store.synthetic import cells\n"
        "from tests.model_store.synthetic.test_cells import digest\n"
        "print([digest(cells.sample(cell, Random(7), 'train', 5)) for cell in cells.CELLS])\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        made.stdout
        == f"{[digest(cells.sample(cell, Random(7), 'train', 5)) for cell in cells.CELLS]}\n"
    )


def test_texts_and_splits_are_those_that_the_published_checkpoint_learnt_from() -> None:
    """A renamed class or field, or a draw in another order, is other training data."""
    samplers = [
        scenes.captions(
            lambda want, rng: (want.text(rng),), lambda scene, rng: (scenes.caption(scene, rng),)
        ),
        facts.facts(
            lambda fact, rng: (fact.question(rng, named=True),),
            lambda fact, rng: (fact.statement(rng, named=True),),
        ),
    ]
    content = hashlib.sha256()
    for rng, split in seeds(50):
        for sampler in samplers:
            content.update(repr(sampler(rng, split, NEGATIVES)).encode())
    assert content.hexdigest() == (
        "3ca719fd1187b4b98d5356335eb059ceeb851eebdf5b76a614fbd19ee4d758a0"
    )
