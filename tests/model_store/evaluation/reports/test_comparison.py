"""Two results are compared query by query, if they are of the same queries and candidates."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from PIL import Image

from model_store.evaluation.bootstrap import Estimate
from model_store.evaluation.gate import compare
from model_store.evaluation.reports.comparison import Comparison, compare_results
from model_store.evaluation.reports.comparison_page import (
    comparison_page,
    verdict,
    write_comparison,
)
from model_store.evaluation.reports.opening import open_results
from model_store.evaluation.reports.run_report import (
    measure_run,
    report_of,
    results_of,
    write_report,
)
from model_store.evaluation.results import Results, ResultsUnusable
from model_store.evaluation.runs.identity import RunIdentity
from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.query_result import QueryResult
from tests.model_store.evaluation.reports.runs import (
    all_results,
    identity,
    query_result,
    write_run,
)


def results(folder: Path, given: list[QueryResult], run: RunIdentity | None = None) -> Results:
    written = write_run(folder, given, run)
    return results_of(written, measure_run(written))


@pytest.fixture
def weak(tmp_path: Path) -> Results:
    return results(tmp_path / "weak", all_results(skill=0.6, seed=1))


def test_a_better_model_is_better_in_the_whole_and_in_its_cells(
    weak: Results, tmp_path: Path
) -> None:
    strong = results(tmp_path / "strong", all_results(skill=2.0))
    found = compare_results(weak, strong)

    assert found.whole.verdict == "better"
    assert found.whole.difference.value == pytest.approx(found.whole.b - found.whole.a)
    assert [line.name for line in found.cells] == ["T-T", "T-I"]
    assert [line.rows for line in found.cells] == [2, 1]
    assert verdict(found).startswith("B is better than A on small-")

    mirrored = compare_results(strong, weak)
    assert mirrored.whole.verdict == "worse"
    assert mirrored.whole.difference.high == pytest.approx(-found.whole.difference.low)


def test_the_whole_is_the_verdict_of_the_gate(weak: Results, tmp_path: Path) -> None:
    other = results(tmp_path / "other", all_results(skill=0.7, seed=2))
    found, gate = compare_results(weak, other).whole, compare(other, weak)
    assert found.difference == Estimate(gate.difference, gate.low, gate.high)
    assert (found.a, found.b) == pytest.approx((gate.promoted, gate.candidate))


def test_the_queries_that_differ_most_are_listed(weak: Results, tmp_path: Path) -> None:
    other = results(tmp_path / "other", all_results(skill=0.7, seed=2))
    found = compare_results(weak, other)
    losses = [query.b - query.a for query in found.losses]
    assert losses == sorted(losses)
    assert losses[-1] < 0
    assert all(query.b > query.a for query in found.gains)
    assert 0 < found.equal < found.whole.queries


def test_the_same_results_are_not_told_apart_and_have_no_changes(weak: Results) -> None:
    found = compare_results(weak, weak)
    assert found.whole.difference == Estimate(0, 0, 0)
    assert (found.losses, found.gains, found.equal) == ([], [], found.whole.queries)
    assert verdict(found).startswith("These queries do not tell B from A on small-")
    assert "**A and B are the same model**" in comparison_page(found)


def test_other_texts_with_the_same_ids_are_refused(weak: Results, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", all_results(), data="sha256:" + "ef" * 32)
    with pytest.raises(ResultsUnusable, match="those of 'facts' differ, by its data, its queries"):
        compare_results(weak, results_of(other, measure_run(other)))


def test_other_instructions_and_unfinished_runs_are_said_so(weak: Results, tmp_path: Path) -> None:
    asked = identity(instruction="Find a | in a news item.")
    few = write_run(tmp_path / "few", all_results(), asked, queries=31)
    found = compare_results(weak, results_of(few, measure_run(few)))
    page = comparison_page(found)
    assert "A: that of each task. B: “Find a \\| in a news item.”." in page
    assert "> **The runs are not finished**" in page
    plain = comparison_page(compare_results(weak, weak))
    assert "instructions" not in plain
    assert "not finished" not in plain


def test_the_verdict_says_how_many_queries_a_model_did_not_score(
    weak: Results, tmp_path: Path
) -> None:
    failing = [
        msgspec.structs.replace(each, scores=[None] * len(each.scores), error="It is not read.")
        if number % 3 == 0
        else each
        for number, each in enumerate(all_results())
    ]
    found = compare_results(weak, results(tmp_path / "failing", failing))
    assert verdict(found).endswith(
        "scores: 0 of A, 40 of B; they count with the first stage's order."
    )


def test_other_candidates_are_refused_by_the_name_of_their_dataset(
    weak: Results, tmp_path: Path
) -> None:
    cut = all_results()
    cut[-1] = query_result("news", 29, candidates=10)
    with pytest.raises(ResultsUnusable, match="the same candidates: those of 'news' differ"):
        compare_results(weak, results(tmp_path / "cut", cut))


def test_other_queries_and_other_tables_are_refused(weak: Results, tmp_path: Path) -> None:
    with pytest.raises(ResultsUnusable, match="'news' differ"):
        compare_results(weak, results(tmp_path / "fewer", all_results()[:-1]))
    part = [each for each in all_results() if each.dataset != "news"]
    with pytest.raises(ResultsUnusable, match="only one has the dataset 'news'"):
        compare_results(weak, results(tmp_path / "part", part))

    tasks = [msgspec.structs.replace(task, metric="ndcg@5") for task in identity().tasks]
    other = results(tmp_path / "metric", all_results(), identity(tasks))
    with pytest.raises(ResultsUnusable, match="cannot be compared"):
        compare_results(weak, other)


def test_too_few_queries_are_refused(tmp_path: Path) -> None:
    tasks = [identity().tasks[1]]
    few = results(tmp_path, all_results(identity(tasks))[:19], identity(tasks))
    with pytest.raises(ResultsUnusable, match="19 queries are too few"):
        compare_results(few, few)


def test_results_without_a_table_are_compared_by_dataset() -> None:
    """Those of `gmr eval MODEL OUTPUT` on the nine cells."""
    given = {
        "benchmark": "nine-cells-50",
        "metric": "ndcg@10",
        "checkpoint": "sha256:" + "0" * 64,
        "datasets": {cell: {f"q{n}": n / 40 for n in range(40)} for cell in ("T-T", "T-I")},
    }
    found = compare_results(Results.model_validate(given), Results.model_validate(given))
    assert [line.name for line in found.rows] == ["T-T", "T-I"]
    assert found.cells == []
    assert "| T-I | ndcg@10 | 40 |" in comparison_page(found)


def test_a_run_its_report_and_the_files_of_it_open_as_the_same_results(
    weak: Results, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", all_results(skill=0.6, seed=1))
    folder = tmp_path / "run" / "report"
    table = measure_run(run)
    write_report(folder, report_of(run, table), results_of(run, table))
    for path in (tmp_path / "run", folder, folder / "report.json", folder / "results.json"):
        assert open_results(path) == weak


def test_what_is_neither_a_run_nor_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsUnusable, match="neither a run"):
        open_results(tmp_path)
    with pytest.raises(ResultsUnusable, match="cannot be read"):
        open_results(tmp_path / "none.json")
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ResultsUnusable, match="no values of queries"):
        open_results(tmp_path / "report.json")
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunUnusable, match=r"run\.json"):
        open_results(tmp_path)


def test_the_files_of_a_comparison_read_back(weak: Results, tmp_path: Path) -> None:
    other = results(tmp_path / "other", all_results(skill=0.7, seed=2))
    found = compare_results(weak, other)
    write_comparison(tmp_path / "out", found)

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["comparison.json", "comparison.md", "comparison.png"]
    encoded = (tmp_path / "out" / "comparison.json").read_bytes()
    assert msgspec.json.decode(encoded, type=Comparison) == found
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.format == "PNG"
