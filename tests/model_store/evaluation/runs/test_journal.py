"""Journals: cut anywhere, on a full disk, and with lines that are no results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.evaluation.runs.journal import Journal, RunUnusable, entries
from model_store.evaluation.runs.query_result import QueryResult

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RESULTS = st.builds(
    QueryResult,
    dataset=TEXTS,
    query=TEXTS,
    candidates=st.lists(TEXTS, max_size=3),
    scores=st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    grades=st.lists(st.integers(-1, 3), max_size=3),
    ideal=st.lists(st.integers(1, 3), max_size=3),
    error=TEXTS,
)


def write(path: Path, results: list[QueryResult]) -> None:
    with Journal(path) as journal:
        for result in results:
            journal.append(result)


def read(path: Path) -> list[QueryResult]:
    return [entry.read() for _, entry in entries(path)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(before=st.lists(RESULTS, min_size=1, max_size=4), after=RESULTS, data=st.data())
def test_a_journal_that_is_cut_anywhere_has_its_whole_lines_and_goes_on(
    tmp_path: Path, before: list[QueryResult], after: QueryResult, data: st.DataObject
) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    write(path, before)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])

    whole = content[:cut].count(b"\n")
    assert read(path) == before[:whole]
    write(path, [after])
    assert read(path) == [*before[:whole], after]


def test_a_full_disk_leaves_the_results_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from model_store.evaluation.runs.journal import Journal\n"
        "from model_store.evaluation.runs.query_result import QueryResult\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with Journal(Path(sys.argv[1])) as journal:\n"
        "    for number in range(100):\n"
        "        journal.append(QueryResult('d', str(number), ['a'], [1.0], [1], [1]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert f"File too large: '{path}'" in ended.stderr
    queries = [query for query, _ in entries(path)]
    assert queries == [str(number) for number in range(len(queries))]
    assert path.stat().st_size == sum(entry.length for _, entry in entries(path))
    assert queries


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, [QueryResult("d", "q", [], [], [], [])])
    with path.open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(RunUnusable, match=r"journal\.jsonl: line 2 is no result; remove that line"):
        read(path)
