"""BM25 against its formula and against bm25s; what words cannot find is said."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import bm25s
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.evaluation.first_stages.candidates import candidates_of
from model_store.evaluation.tasks.dataset import TaskUnusable
from tests.model_store.evaluation.first_stages.datasets import dataset_of

PICTURE = b"a picture"
_texts = st.lists(st.sampled_from(["elm", "fir", "oak", "ash", "yew"]), max_size=6).map(" ".join)


def scores_of(query: str, documents: list[str]) -> list[float]:
    """Lucene's BM25 with k1 = 1.5 and b = 0.75, written out."""
    words = [document.split() for document in documents]
    mean = sum(map(len, words)) / len(words)
    scores = [0.0] * len(words)
    for word in query.split():
        frequency = sum(word in each for each in words)
        idf = math.log(1 + (len(words) - frequency + 0.5) / (frequency + 0.5))
        for number, each in enumerate(words):
            count = Counter(each)[word]
            scores[number] += idf * count / (count + 1.5 * (0.25 + 0.75 * len(each) / mean))
    return scores


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(_texts, min_size=1, max_size=12).filter(any),
    query=_texts.filter(bool),
    top_k=st.integers(1, 8),
)
def test_candidates_are_those_of_the_formula_and_equal_ones_in_the_order_of_documents(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], query: str, top_k: int
) -> None:
    if not set(query.split()) & set(" ".join(documents).split()):
        return
    dataset = dataset_of([query], documents)
    candidates = candidates_of(dataset, "bm25", top_k, tmp_path_factory.mktemp("cache"))
    numbers = [int(document[1:]) for document in candidates["q0"]]
    scores = scores_of(query, documents)
    expected = sorted(
        (number for number, score in enumerate(scores) if score > 0),
        key=lambda number: (-round(scores[number], 5), number),
    )
    assert numbers == expected[:top_k]


def test_candidates_are_those_of_bm25s(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(40)]
    documents = [" ".join(words[(n * step) % 40] for step in (1, 3, 7, 11)) for n in range(1, 200)]
    queries = [f"{words[n]} {words[(n * 5) % 40]} the" for n in range(20)]
    candidates = candidates_of(dataset_of(queries, documents), "bm25", 10, tmp_path)

    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    index.index(bm25s.tokenize(documents, stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False, return_ids=False)
    for number, query in enumerate(tokens):
        scores = index.get_scores(query)
        found = sorted(scores.nonzero()[0].tolist(), key=lambda n: (-scores[n], n))
        assert candidates[f"q{number}"] == [f"d{n}" for n in found[:10]]


def test_a_dataset_excludes_documents_and_top_k_others_are_found(tmp_path: Path) -> None:
    documents = {"q0": "elm", "d1": "elm", "d2": "elm", "d3": "elm", "d4": "fir"}
    own = dataset_of(["elm"], documents, excludes_the_query=True)
    assert candidates_of(own, "bm25", 2, tmp_path)["q0"] == ["d1", "d2"]

    more = dataset_of(
        ["elm"], documents, excludes_the_query=True, digest="1", excluded={"q0": {"d1", "d2"}}
    )
    assert candidates_of(more, "bm25", 2, tmp_path)["q0"] == ["d3"]


def test_the_share_that_words_cannot_find_is_said(tmp_path: Path) -> None:
    documents = {"d0": "elm", "d1": PICTURE, "d2": PICTURE, "d3": "fir"}
    dataset = dataset_of({"q0": "elm", "q1": PICTURE, "q2": "zebra"}, documents)
    for _ in range(2):  # found, and read again
        said: list[str] = []
        candidates = candidates_of(dataset, "bm25", 5, tmp_path, notice=said.append)
        assert dict(candidates) == {"q0": ["d0"], "q1": [], "q2": []}
        assert said == [
            "set: 2 of 4 documents (50.0%) and 1 of 3 queries (33.3%) have no text, and BM25 reads"
            " words alone; --first-stage gme reads images.",
            "set: 2 of 3 queries have no candidates by bm25, and score 0; the first of them is"
            " 'q1'.",
        ]


def test_no_image_is_read_for_words(tmp_path: Path) -> None:
    documents = {"d0": "elm", "d1": PICTURE}
    dataset = dataset_of(["elm"], documents, unreadable=["d1"])
    assert candidates_of(dataset, "bm25", 5, tmp_path)["q0"] == ["d0"]


@pytest.mark.parametrize(
    ("queries", "documents", "sentence"),
    [
        ({"q": PICTURE}, {"d": "elm"}, "set: no query has a text, and BM25 reads words alone"),
        ({"q": "elm"}, {"d": PICTURE}, "set: no document has a text, and BM25 reads words alone"),
        ({"q": "zebra"}, {"d": "elm"}, "set: bm25 finds no candidate of any query"),
    ],
)
def test_a_dataset_of_which_nothing_can_be_found_is_refused(
    tmp_path: Path,
    queries: dict[str, str | bytes | None],
    documents: dict[str, str | bytes | None],
    sentence: str,
) -> None:
    with pytest.raises(TaskUnusable, match=sentence):
        candidates_of(dataset_of(queries, documents), "bm25", 5, tmp_path)


def test_a_search_goes_on_where_it_was_interrupted_and_is_not_done_twice(tmp_path: Path) -> None:
    documents = [f"elm w{number}" for number in range(20)]
    queries = [f"w{number % 20}" for number in range(1_100)]
    done: list[int] = []
    indexed: list[int] = []

    def stop_in_the_second_part(what: str, count: int) -> None:
        if what == "documents":
            indexed.append(count)
            return
        done.append(count)
        if len(done) == 2:
            raise KeyboardInterrupt

    dataset = dataset_of(queries, documents)
    with pytest.raises(KeyboardInterrupt):
        candidates_of(dataset, "bm25", 3, tmp_path, progress=stop_in_the_second_part)
    assert indexed == [20]
    (folder,) = tmp_path.iterdir()
    written = {path.name: path.stat().st_mtime_ns for path in folder.glob("00000[01].*")}
    assert len(written) == 4

    candidates = candidates_of(dataset, "bm25", 3, tmp_path)
    assert [candidates[f"q{n}"] for n in range(1_100)] == [[f"d{n % 20}"] for n in range(1_100)]
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("00000[01].*")} == written
    # a finished search reads neither documents nor queries
    unreadable = dataset_of(queries, documents, unreadable=["q0", "d0"])
    assert dict(candidates_of(unreadable, "bm25", 3, tmp_path)) == dict(candidates)


def test_some_queries_alone_are_searched_and_other_settings_have_another_folder(
    tmp_path: Path,
) -> None:
    dataset = dataset_of(["elm", "fir"], ["elm", "fir", "elm fir"])
    some = candidates_of(dataset, "bm25", 2, tmp_path, queries=["q1"])
    assert dict(some) == {"q1": ["d1", "d2"]}
    assert dict(candidates_of(dataset, "bm25", 1, tmp_path)) == {"q0": ["d0"], "q1": ["d1"]}
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_candidates_are_said(tmp_path: Path) -> None:
    dataset = dataset_of(["elm"], ["elm"])
    candidates_of(dataset, "bm25", 2, tmp_path)
    (part,) = tmp_path.glob("*/000000.i32")
    part.write_bytes(b"")
    with pytest.raises(TaskUnusable, match=r"000000\.i32: it is damaged; remove .* to search"):
        candidates_of(dataset, "bm25", 2, tmp_path)
