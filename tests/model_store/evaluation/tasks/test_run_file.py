"""Run files: read back as they were written, in any order of lines, or refused with their line."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.evaluation.tasks.dataset import TaskUnusable
from model_store.evaluation.tasks.readers.judgements import read_judgements
from model_store.evaluation.tasks.readers.run_file import read_run

IDS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="\ufeff"),
    min_size=1,
    max_size=8,
)
RANKINGS = st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=6, unique=True), min_size=1)
KNOWN = {"q1", "q2", "a", "b", "c"}
in_one_folder = settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


class Everything:
    def __contains__(self, item_id: object) -> bool:
        return True


@in_one_folder
@given(rankings=RANKINGS, seed=st.integers(0, 9), packed=st.booleans())
def test_a_run_is_read_as_it_was_written(
    tmp_path: Path, rankings: dict[str, list[str]], seed: int, packed: bool
) -> None:
    lines = [
        f"{query} Q0 {document} {rank} {-rank / 3} mine\n"
        for query, documents in rankings.items()
        for rank, document in enumerate(documents)
    ]
    random.Random(seed).shuffle(lines)
    content = "".join(lines).encode()
    path = tmp_path / ("run.trec.gz" if packed else "run.trec")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_run(path, Everything(), Everything()) == rankings


@in_one_folder
@given(
    grades=st.dictionaries(
        IDS, st.dictionaries(IDS, st.integers(-(2**31), 2**31 - 1), min_size=1), min_size=1
    ),
    trec=st.booleans(),
)
def test_judgements_are_read_as_they_were_written(
    tmp_path: Path, grades: dict[str, dict[str, int]], trec: bool
) -> None:
    path = tmp_path / "qrels.txt"
    lines = [] if trec else ["query-id\tcorpus-id\tscore"]
    for query, of_query in grades.items():
        for document, grade in of_query.items():
            lines.append(
                f"{query} 0 {document} {grade}" if trec else f"{query}\t{document}\t{grade}"
            )
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_judgements(path, Everything(), Everything()) == grades


REFUSED = {
    "q1 Q0 a 1 0.9 r\nq1 Q0 b 1 0.8 r": ":2: the query has rank 1 twice.",
    "q1 Q0 a 1 0.9 r\nq2 Q0 b 1 1 r\nq1 Q0 a 2 0.8 r": ":3: the query has document 'a' twice.",
    "q1 Q0 a 1 0.8 r\nq1 Q0 b 2 0.9 r": (
        ":2: rank 2 has a larger score than rank 1 of the same query."
    ),
    "q1 Q0 a 1 0.8 r\n\nq1 Q0 z 2 0.8 r": ":3: there is no document 'z'.",
    "q8 Q0 a 1 0.8 r\nq9 Q0 a 1 0.8 r": ": there are no candidates of any judged query.",
    "q1 Q0 a first 0.8 r": ":1: the rank 'first' is no integer of 32 bits.",
    "q1 Q0 a 1 nan r": ":1: the score 'nan' is no finite number.",
    "q1 a 1 0.8": (
        ":1: 4 cells, and a line is a query, Q0, a document, a rank, a score and the name of the"
        " run (TREC)."
    ),
    "q1 Q0 a 1 0.8 \udcff": ":1: this is not UTF-8.",
    "\n": ": there are no candidates of any judged query.",
}


@pytest.mark.parametrize("content", REFUSED)
def test_a_bad_run_is_refused_with_its_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.trec"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(TaskUnusable) as refused:
        read_run(path, KNOWN, KNOWN)
    assert str(refused.value) == f"{path}{REFUSED[content]}"


def test_a_damaged_packed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.trec.gz"
    path.write_bytes(gzip.compress(b"q1 Q0 a 1 0.8 r\n" * 100)[:-12])
    with pytest.raises(TaskUnusable, match="the gzip file is cut off or damaged"):
        read_run(path, KNOWN, KNOWN)


def test_equal_scores_keep_their_ranks(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q1 Q0 b 2 0.5 r\nq1 Q0 a 3 0.5 r\nq1 Q0 c 1 0.5 r\n", encoding="utf-8")
    assert read_run(path, KNOWN, KNOWN) == {"q1": ["c", "b", "a"]}


def test_queries_that_nobody_judged_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text("q7 Q0 z 1 0.9 r\nq1 Q0 a 1 0.9 r\nq7 Q0 z 1 0.9 r\n", encoding="utf-8")
    assert read_run(path, KNOWN, KNOWN) == {"q1": ["a"]}
