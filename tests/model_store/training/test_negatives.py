"""No positive is ever a negative; the same seed gives the same negatives, however the work is
shared and interrupted."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.errors import DataError
from model_store.retrieval.embedder import Query
from model_store.retrieval.found import Found
from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.image_files import ImageMode
from model_store.training.data.rows import Example, Side, read_examples
from model_store.training.data.validation import check
from model_store.training.negatives.bm25 import Bm25
from model_store.training.negatives.choosing import Band, Rules, ceiling, choose
from model_store.training.negatives.mining import Miner, Run, check_before
from model_store.training.negatives.opening import Choice, open_retriever
from tests.model_store.training.rows import draw, write_rows

WORDS = [
    "alder",
    "birch",
    "cedar",
    "dogwood",
    "elm",
    "fir",
    "ginkgo",
    "hazel",
    "ironwood",
    "juniper",
]
DOCUMENTS = 60
EXAMPLES = 22


def document(number: int) -> str:
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 3, 7)) + f" number{number}"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A file of examples, some with several positives, and its corpus, in which every document is
    there twice."""
    rows = [
        {"id": f"d{number}", "text": document(number % (DOCUMENTS // 2))}
        for number in range(DOCUMENTS)
    ]
    corpus = write_rows(tmp_path / "corpus.jsonl", rows)
    examples = [
        {
            "id": f"q{number}",
            "query": f"{WORDS[number % 10]} {WORDS[(number * 3) % 10]} {WORDS[(number + 5) % 10]}",
            "positives": [document(number), document((number * 7) % 30).upper()],
            "negatives": ["given before"],
        }
        for number in range(EXAMPLES)
    ]
    return Run(
        write_rows(tmp_path / "train.jsonl", examples),
        corpus,
        tmp_path / "mined.jsonl",
        Rules(hard=4, random=3, top=20),
    )


def mine(run: Run) -> dict[str, Any]:
    corpus = Corpus(run.corpus)
    miner = Miner(run, corpus, Bm25(corpus))
    miner.mine(range(miner.parts))
    return miner.finish()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_positive_is_among_the_negatives_and_none_is_there_twice(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=16))
    folder = tmp_path_factory.mktemp("corpus")
    corpus = Corpus(
        write_rows(
            folder / "corpus.jsonl", [{"id": f"{n}", "text": text} for n, text in enumerate(texts)]
        )
    )
    positives = data.draw(st.lists(st.sampled_from("ABCDEFGHX"), min_size=1, max_size=4))
    example = Example(
        "e",
        None,
        Side(data.draw(st.sampled_from("abq")), None),
        tuple(Side(text, None) for text in positives),
        (),
        "",
    )
    places = data.draw(st.permutations(range(len(texts))))[: data.draw(st.integers(0, len(texts)))]
    scores = sorted(
        data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(places), max_size=len(places))),
        reverse=True,
    )
    found = Found(np.array(places, np.int64), np.array(scores, np.float32))
    rules = Rules(
        hard=data.draw(st.integers(0, 5)),
        random=data.draw(st.integers(0, 5)),
        top=data.draw(st.integers(1, 16)),
        seed=7,
    )
    limit = data.draw(st.none() | st.floats(0, 1))
    chosen = choose(example, corpus, found, limit, rules)
    keys = [content_key(negative.side) for negative in chosen.negatives]
    known = {content_key(side) for side in (example.query, *example.positives)}
    assert len(set(keys)) == len(keys)
    assert not known & set(keys)
    candidates = {
        content_key(Side(texts[place], None))
        for place, score in zip(places[: rules.top], scores, strict=False)
        if limit is None or score <= limit
    }
    hard = [negative for negative in chosen.negatives if negative.kind == "hard"]
    assert {content_key(negative.side) for negative in hard} <= candidates
    assert len(hard) == min(rules.hard, len(candidates - known))  # as many as there are
    left = (
        {content_key(Side(text, None)) for text in texts}
        - known
        - {content_key(negative.side) for negative in hard}
    )
    assert len(chosen.negatives) - len(hard) == min(rules.random, len(left))
    assert chosen == choose(example, corpus, found, limit, rules)


def test_negatives_are_drawn_from_the_candidates_and_differ_with_the_seed_and_the_example(
    run: Run,
) -> None:
    corpus = Corpus(run.corpus)
    example = next(read_examples(run.source))
    found = Bm25(corpus).search([Query(None, example.query, "")], 100)[0]
    drawn = {
        tuple(
            choose(
                replace(example, id=f"{name}"), corpus, found, None, replace(run.rules, seed=seed)
            ).negatives
        )
        for name in range(4)
        for seed in range(4)
    }
    assert len(drawn) > 12


def test_bands_draw_from_their_own_ranks(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        "".join(json.dumps({"id": str(n), "text": f"text {n}"}) + "\n" for n in range(60))
    )
    found = Found(np.arange(60), np.linspace(1, 0, 60))
    example = Example("e", None, Side("q", None), (Side("text 3", None),), (), "rows:1")
    bands = (Band(1, 10, 3), Band(11, 30, 2), Band(31, 60, 4))
    rules = Rules(hard=9, random=0, top=60, bands=bands)
    chosen = choose(example, Corpus(path), found, None, rules)
    ranks = [int(str(negative.side.text).split()[1]) + 1 for negative in chosen.negatives]
    assert [sum(band.first <= rank <= band.last for rank in ranks) for band in bands] == [3, 2, 4]
    assert 4 not in ranks  # the positive

    few = replace(rules, bands=(Band(1, 2, 5), Band(3, 4, 5)), hard=10)
    chosen = choose(example, Corpus(path), found, None, few)
    assert sorted(str(negative.side.text) for negative in chosen.negatives) == [
        "text 0", "text 1", "text 2",
    ]  # fmt: skip


def test_bm25_finds_what_shares_rare_words_and_scores_as_it_finds(run: Run) -> None:
    corpus = Corpus(run.corpus)
    retriever = Bm25(corpus)
    query = Query(None, Side(f"The {document(17)}?", None), "here")
    (found,) = retriever.search([query], 5)
    assert found.numbers[:2].tolist() == [17, 47]
    assert np.all(np.diff(found.scores) <= 0)
    assert retriever.score(query, [Side(document(17).upper(), None), Side("not there", None)]) == [
        pytest.approx(float(found.scores[0])),
        None,
    ]
    (nothing,) = retriever.search([Query(None, Side("zebra", None), "here")], 5)
    assert nothing.numbers.tolist() == []
    assert [one.numbers.tolist() for one in retriever.search([query] * 2, 60)] == [
        retriever.search([query], 60)[0].numbers.tolist()
    ] * 2


def test_a_run_gives_as_many_of_each_kind_as_asked_and_counts_them(run: Run) -> None:
    report = mine(run)
    source, mined = list(read_examples(run.source)), list(read_examples(run.target))
    assert [(row.id, row.query, row.positives) for row in mined] == [
        (row.id, row.query, row.positives) for row in source
    ]
    kinds = [[negative.kind for negative in row.negatives] for row in mined]
    assert kinds == [["hard"] * 4 + ["random"] * 3] * EXAMPLES
    for row in mined:
        keys = {content_key(negative.side) for negative in row.negatives}
        assert len(keys) == 7
        assert not keys & {content_key(side) for side in row.positives}
    assert (report["examples"], report["hard"], report["random"]) == (
        EXAMPLES,
        4 * EXAMPLES,
        3 * EXAMPLES,
    )
    assert sum(report["hard_scores"].values()) == 4 * EXAMPLES
    assert (
        report["fewer_hard"],
        report["without_negatives"],
        report["dropped_as_too_relevant"],
    ) == (0, 0, 0)
    assert json.loads(run.report.read_text(encoding="utf-8")) == json.loads(json.dumps(report))


def test_given_negatives_may_stay(run: Run) -> None:
    mine(replace(run, keep=True))
    assert all(
        row.negatives[0].side.text == "given before" and len(row.negatives) == 8
        for row in read_examples(run.target)
    )


def test_a_row_with_a_teachers_scores_is_refused_before_anything_is_embedded(run: Run) -> None:
    rows = [json.loads(line) for line in run.source.read_text(encoding="utf-8").splitlines()]
    write_rows(run.source, [rows[0], rows[1] | {"teacher_scores": [1.0, 0.5, 0.0]}])
    with pytest.raises(DataError, match=r"train\.jsonl:2: the row has teacher_scores, and"):
        check_before(run)


def test_where_all_candidates_are_positives_there_are_fewer_and_it_is_said(run: Run) -> None:
    rows = [{"id": f"q{n}", "query": f"number{n}", "positives": [document(n)]} for n in range(3)]
    few = replace(run, source=write_rows(run.source, rows))
    report = mine(few)
    # random ones alone
    assert [len(row.negatives) for row in read_examples(few.target)] == [3, 3, 3]
    assert (report["hard"], report["fewer_hard"], report["dropped_as_relevant"]) == (0, 3, 6)
    rows = [{"id": "q", "query": "elm", "positives": [document(n) for n in range(30)]}]
    report = mine(
        replace(run, source=write_rows(run.source, rows), target=run.target.with_name("none.jsonl"))
    )
    assert (report["hard"], report["random"], report["without_negatives"]) == (0, 0, 1)


def test_a_margin_drops_candidates_that_are_as_relevant_as_a_positive(run: Run) -> None:
    corpus = Corpus(run.corpus)
    retriever = Bm25(corpus)
    for rules in (Rules(4, 3, 60, absolute=1.0), Rules(4, 3, 60, relative=0.5)):
        report = mine(replace(run, rules=rules))
        assert report["dropped_as_too_relevant"] > 0
        assert report["random_dropped_as_too_relevant"] > 0
        assert report["random"] == 3 * EXAMPLES
        assert report["not_guarded"] == 0
        for row in read_examples(run.target):
            scores = score(retriever, row, row.positives)
            limit = ceiling(rules, scores)
            assert limit == pytest.approx(min(scores) - 1.0 if rules.absolute else min(scores) / 2)
            sides = [negative.side for negative in row.negatives]
            # a document that shares no word with the query has no score to keep a margin from
            assert all(found <= max(limit, 0) + 1e-6 for found in score(retriever, row, sides))


def score(retriever: Bm25, row: Example, sides: Sequence[Side]) -> list[float]:
    return [one for one in retriever.score(Query(None, row.query, ""), sides) if one is not None]


def test_a_ceiling_is_below_the_positive_that_scores_least() -> None:
    assert ceiling(Rules(), [0.5]) is None
    assert ceiling(Rules(absolute=0.1), [None, None]) is None
    assert ceiling(Rules(absolute=0.1), [0.9, None, 0.5]) == pytest.approx(0.4)
    # lower, also where scores are negative
    assert ceiling(Rules(relative=0.1), [-0.5]) == pytest.approx(-0.55)
    assert ceiling(Rules(absolute=0.1, relative=0.5), [0.5]) == pytest.approx(0.25)


def test_shards_together_give_what_one_process_gives(run: Run) -> None:
    run = replace(run, examples_a_part=4)
    mine(run)
    together = replace(run, target=run.target.with_name("together.jsonl"))
    for number in (2, 0, 1):
        corpus = Corpus(run.corpus)
        miner = Miner(together, corpus, Bm25(corpus))
        assert [part for shard in range(3) for part in miner.shard(shard, 3)] == list(
            range(miner.parts)
        )
        if number != 1:
            with pytest.raises(DataError, match="is not done"):
                miner.finish()
        miner.mine(miner.shard(number, 3))
    miner.finish()
    assert together.target.read_bytes() == run.target.read_bytes()
    assert together.report.read_bytes() == run.report.read_bytes()


KILLED = """
import os, pickle, signal, sys
from model_store.training.data.corpus import Corpus
from model_store.training.negatives.bm25 import Bm25
from model_store.training.negatives.mining import Miner
run, count = pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[2])

class Killing(Bm25):
    scored = 0
    def score(self, query, sides):
        self.scored += 1
        if self.scored == count: os.kill(os.getpid(), signal.SIGKILL)
        return super().score(query, sides)

corpus = Corpus(run.corpus)
miner = Miner(run, corpus, Killing(corpus))
miner.mine(range(miner.parts))
"""


def test_a_run_that_was_killed_goes_on_and_ends_the_same(run: Run) -> None:
    """A margin that no candidate misses has the retriever score each example's positives."""
    run = replace(run, examples_a_part=4, rules=replace(run.rules, absolute=-1000.0))
    mine(run)
    again = replace(run, target=run.target.with_name("again.jsonl"))
    # within the second part; then, two parts later, within another
    for count, parts in ((7, 1), (10, 3)):
        command = [sys.executable, "-c", KILLED, pickle.dumps(again).hex(), str(count)]
        assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
        assert not again.target.exists()
        assert len(list(again.parts_folder.glob("0*.json"))) == parts
    mine(again)
    assert again.target.read_bytes() == run.target.read_bytes()
    assert again.report.read_bytes() == run.report.read_bytes()
    assert not again.parts_folder.exists()


def test_parts_of_another_run_are_not_mixed_in(run: Run) -> None:
    corpus = Corpus(run.corpus)
    Miner(run, corpus, Bm25(corpus)).mine(range(1))
    other = Miner(replace(run, rules=replace(run.rules, seed=1)), corpus, Bm25(corpus))
    with pytest.raises(DataError, match=r"parts of other work \(rules differ\)"):
        other.mine(range(1))


def test_a_finished_run_is_known(run: Run) -> None:
    corpus = Corpus(run.corpus)
    assert Miner(run, corpus, Bm25(corpus)).finished() is None
    report = mine(run)
    assert Miner(run, corpus, Bm25(corpus)).finished() == json.loads(json.dumps(report))
    assert (
        Miner(replace(run, rules=replace(run.rules, seed=1)), corpus, Bm25(corpus)).finished()
        is None
    )


def test_bm25_takes_a_corpus_with_images_and_says_how_many_it_cannot_find(run: Run) -> None:
    draw(run.corpus.parent / "a.png", "red")
    draw(run.corpus.parent / "b.png", "blue")
    documents = [
        {"id": "1", "text": "elm"},
        {"id": "2", "image": "a.png"},
        {"id": "3", "text": "elm", "image": "b.png"},
    ]
    write_rows(run.corpus, [*documents, {"id": "4", "text": "fir"}])
    write_rows(
        run.source,
        [
            {"id": "text", "query": "elm", "positives": ["elm"]},
            {"id": "both", "query": {"text": "fir", "image": "a.png"}, "positives": ["p"]},
            {"id": "image", "query": {"image": "a.png"}, "positives": ["p"]},
        ],
    )
    report = mine(run)
    text, both, image = (example.negatives for example in read_examples(run.target))
    assert [negative.side.text for negative in text if negative.kind == "hard"] == ["elm"]
    assert [negative.side.image for negative in text if negative.kind == "hard"] == [
        run.corpus.parent / "b.png"
    ]
    assert [negative.side.text for negative in both if negative.kind == "hard"] == ["fir"]
    assert {negative.kind for negative in image} == {"random"}
    assert (report["fewer_hard"], report["run"]["retriever"]["documents_without_text"]) == (3, 1)
    assert Bm25(Corpus(run.corpus)).score(
        Query(None, Side("elm", None), ""), [Side(None, run.corpus.parent / "a.png")]
    ) == [None]


def test_bm25_refuses_a_corpus_of_images_alone_and_says_what_helps(run: Run) -> None:
    draw(run.corpus.parent / "a.png", "red")
    write_rows(run.corpus, [{"id": "2", "image": "a.png"}])
    with pytest.raises(
        DataError, match="no document has a word, and BM25 reads words alone; --hard 0 mines random"
    ):
        mine(run)
    assert not run.target.exists()
    write_rows(run.corpus, [{"id": "1", "text": "elm"}, {"text": "fir"}])
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: the row has no 'id'\."):
        mine(run)


def test_random_negatives_of_a_corpus_of_images_need_no_retriever(run: Run) -> None:
    for colour in ("red", "blue", "green"):
        draw(run.corpus.parent / f"{colour}.png", colour)
    write_rows(
        run.corpus,
        [{"id": colour, "image": f"{colour}.png"} for colour in ("red", "blue", "green")],
    )
    random = replace(run, rules=Rules(hard=0, random=2))
    corpus = Corpus(run.corpus)
    miner = Miner(random, corpus, open_retriever(Choice("none"), corpus))
    miner.mine(range(miner.parts))
    report = miner.finish()
    assert (report["hard"], report["random"], report["fewer_hard"]) == (0, 2 * EXAMPLES, 0)
    assert all({n.kind for n in row.negatives} == {"random"} for row in read_examples(run.target))


@pytest.mark.parametrize("images", ["link", "copy", "reference"])
def test_images_outside_the_targets_folder_are_brought_there(
    run: Run, tmp_path: Path, images: ImageMode
) -> None:
    for folder, colour in (("train", "red"), ("corpus", "blue")):
        draw(tmp_path / folder / "images/a.png", colour)  # of one name, and not the same
    source = write_rows(
        tmp_path / "train/rows.jsonl", [{"query": {"image": "images/a.png"}, "positives": ["p"]}]
    )
    corpus = write_rows(
        tmp_path / "corpus/rows.jsonl", [{"id": "1", "text": "elm", "image": "images/a.png"}]
    )
    there = replace(
        run, source=source, corpus=corpus, target=tmp_path / "data/train.jsonl", images=images
    )
    if images == "reference":
        with pytest.raises(
            DataError, match=r"the image lies outside .*data, .* --images link or --images copy"
        ):
            check_before(there)
        return
    check_before(there)
    mine(there)
    (row,) = read_examples(there.target)
    pictures = [row.query.image, row.negatives[0].side.image]
    for picture, folder in zip(pictures, ("train", "corpus"), strict=True):
        assert picture
        assert picture.is_relative_to(tmp_path / "data/images")
        assert picture.is_symlink() == (images == "link")
        assert picture.read_bytes() == (tmp_path / folder / "images/a.png").read_bytes()
    assert not check(there.target, decode=True).wrong
