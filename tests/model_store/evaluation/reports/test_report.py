"""A report has the means and intervals of its run, and its page is the one that was looked at."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import msgspec
import pytest
from PIL import Image

from model_store.evaluation.reports.markdown import headline, to_markdown
from model_store.evaluation.reports.report import Report, System, make_report
from model_store.evaluation.reports.run_report import (
    measure_run,
    report_of,
    results_of,
    write_report,
)
from model_store.evaluation.results import ResultsUnusable, read_results
from model_store.evaluation.runs.folder import Run
from model_store.evaluation.runs.identity import RunTask
from model_store.evaluation.runs.query_result import QueryResult
from tests.model_store.evaluation.reports.runs import (
    CHECKPOINT,
    DIGEST,
    all_results,
    identity,
    query_result,
    write_run,
)

GOLDEN = Path(__file__).with_name("golden.md")
SYSTEMS = (
    System("First", {"T-T/Forums": 0.5, "T-T/Facts": 0.25, "T-I/News": 0.75}),
    System("Text | only", {"T-T/Forums": 0.5, "T-T/Facts": 0.75}),
    System("Elsewhere", {"T-T/Others": 0.5}),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    results = all_results()
    results[0] = msgspec.structs.replace(
        results[0], scores=[None] * 20, error="The service timed out."
    )
    results[1] = msgspec.structs.replace(results[1], scores=[None, *results[1].scores[1:]])
    results[2] = msgspec.structs.replace(results[2], grades=[0] * 20, ideal=[])
    return write_run(tmp_path / "run", results)


def report(run: Run, systems: tuple[System, ...] = ()) -> Report:
    made = report_of(run, measure_run(run))
    if not systems:
        return made
    table = measure_run(run)
    return make_report(made.subject, table, expected=made.expected, systems=systems)


def test_the_page_is_the_golden_one(run: Run) -> None:
    """After a change that is meant, look at the page, and write it into golden.md."""
    assert to_markdown(report(run, SYSTEMS)) == GOLDEN.read_text(encoding="utf-8")


def test_a_row_is_the_mean_over_its_datasets_and_the_whole_over_its_rows(run: Run) -> None:
    made = report(run)
    scores = {line.name: line.score.value for line in made.rows}
    assert made.whole.score.value == pytest.approx(fmean(scores.values()))
    assert made.cells[0].score.value == pytest.approx(
        fmean([scores["T-T/Forums"], scores["T-T/Facts"]])
    )

    values = results_of(run, measure_run(run)).datasets
    parts = [fmean(values[name].values()) for name in ("forum-a", "forum-b")]
    assert scores["T-T/Forums"] == pytest.approx(fmean(parts))


def test_values_are_within_their_intervals_and_below_the_perfect_order(run: Run) -> None:
    made = report(run)
    for line in (made.whole, *made.cells, *made.rows):
        assert line.score.low <= line.score.value <= line.score.high
        assert line.gain.value == pytest.approx(line.score.value - line.first_stage)
        assert max(line.score.value, line.first_stage) <= line.perfect <= 1
        assert line.recall < 1


def test_a_part_of_mrb_is_beside_the_papers_systems(tmp_path: Path) -> None:
    """Table 14: GME-2B has 25.77 and 38.55 on these two, and text-only rerankers have nothing."""
    tasks = [
        RunTask(f"T-I/{name}", "T-I", "hit@5", [name]) for name in ("Fashion200k", "VisualNews")
    ]
    part = identity(tasks, benchmark="mrb:T-I")
    made = report(write_run(tmp_path, all_results(part), part))

    assert made.rows[0].systems["GME-2B"] == pytest.approx(0.2577)
    assert made.whole.systems["GME-2B"] == pytest.approx((0.2577 + 0.3855) / 2)
    assert {"GMR-3B", "GMR-7B"} <= set(made.systems)
    assert "Qwen3" not in made.systems
    assert "the paper's values (table 14)" in to_markdown(made)


def test_a_better_model_has_a_gain_and_one_that_guesses_has_none(tmp_path: Path) -> None:
    good = report(write_run(tmp_path / "good", all_results(skill=2.0)))
    guessing = report(write_run(tmp_path / "guessing", all_results(skill=0.0)))
    assert good.whole.gain.low > 0
    assert not guessing.whole.gain.differs_from_zero


def test_a_part_of_a_run_is_reported_as_one(tmp_path: Path) -> None:
    """A row of which a dataset is missing is no part of the means."""
    part = [each for each in all_results() if each.dataset in ("forum-a", "facts")][:-5]
    made = report(write_run(tmp_path, part))
    assert [line.name for line in made.rows] == ["T-T/Facts"]
    assert made.missing == ["T-T/Forums", "T-I/News"]
    page = to_markdown(made)
    assert "The run is not finished: 25 of 60 queries" in page
    assert "Without results: T-T/Forums, T-I/News." in page


def test_a_run_without_results_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ResultsUnusable, match="nothing to report"):
        measure_run(write_run(tmp_path, []))


def test_tasks_of_the_same_queries_do_not_narrow_the_interval_of_their_mean(tmp_path: Path) -> None:
    stages = ["bm25", "dense", "sparse", "both"]
    asked = identity([RunTask(stage, "energy", "ndcg@10", [stage]) for stage in stages])
    same = [
        msgspec.structs.replace(query_result("bm25", number), dataset=stage)
        for stage in stages
        for number in range(30)
    ]
    made = report(write_run(tmp_path / "same", same, asked))
    assert made.whole.score.low == pytest.approx(made.rows[3].score.low)
    assert made.whole.score.high == pytest.approx(made.rows[3].score.high)

    cells = identity([RunTask(stage, stage, "ndcg@10", [stage]) for stage in stages])
    independent = report(write_run(tmp_path / "independent", same, cells)).whole.score
    width = made.whole.score.high - made.whole.score.low
    assert independent.high - independent.low == pytest.approx(width / 2, rel=0.1)


@pytest.mark.parametrize(
    ("grades", "sentence"),
    [
        ([0, 0, 0], "No relevant document is among the candidates: every order of them has 0.00."),
        ([0, 0, 1], "The first stage's order has 0.00: no relevant document is among its first"),
    ],
)
def test_a_first_stage_with_nothing_relevant_is_told_from_one_that_lists_it_last(
    tmp_path: Path, grades: list[int], sentence: str
) -> None:
    folder_name = "x" * 250
    asked = identity([RunTask(folder_name, folder_name, "hit@1", ["one"])])
    results = [
        QueryResult("one", str(number), ["a", "b", "c"], [1.0, 2.0, 3.0], grades, [1])
        for number in range(3)
    ]
    run = write_run(tmp_path / "run", results, asked)
    assert [note for note in headline(report(run)) if "has 0.00" in note][-1].startswith(sentence)
    assert "Tasks with fewer than 20 queries: 1 of 1." in to_markdown(report(run))
    assert results_of(run, measure_run(run)).table == {folder_name: ["one"]}


def test_results_have_the_checkpoint_or_the_services_digest(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", all_results())
    assert results_of(run, measure_run(run)).checkpoint == CHECKPOINT

    foreign = write_run(tmp_path / "b", all_results(), identity(checkpoint=""))
    results = results_of(foreign, measure_run(foreign))
    assert results.checkpoint == DIGEST
    assert results.benchmark.startswith("small-")


def test_the_files_read_back_and_the_picture_is_one(run: Run, tmp_path: Path) -> None:
    made, results = report(run, SYSTEMS), results_of(run, measure_run(run))
    write_report(tmp_path / "out", made, results)

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["report.json", "report.md", "report.png", "results.json"]
    encoded = (tmp_path / "out" / "report.json").read_bytes()
    assert msgspec.json.decode(encoded, type=Report) == made
    assert read_results(tmp_path / "out" / "results.json") == results
    with Image.open(tmp_path / "out" / "report.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 1_000
        assert len(picture.convert("RGB").getcolors(2**20) or ()) > 10  # it is not blank


def test_a_report_that_cannot_be_written_is_one_sentence(run: Run, tmp_path: Path) -> None:
    table = measure_run(run)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResultsUnusable, match=r"file cannot be written to \(.*\)\.$"):
        write_report(tmp_path / "file", report_of(run, table), results_of(run, table))


def test_names_of_markdown_and_of_mathematics_are_shown_as_they_are(tmp_path: Path) -> None:
    run = identity(model="a|b $x$ \\ model", benchmark="$_{bad}$ | set")
    folder = write_run(tmp_path / "run", all_results(run), run)
    write_report(tmp_path / "out", report(folder), results_of(folder, measure_run(folder)))
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "# a\\|b $x$ \\\\ model on $_{bad}$ \\| set: " in page
    assert (tmp_path / "out" / "report.png").exists()


def test_a_query_with_other_lists_is_named(tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(query_result("facts", 0), grades=[1])
    run = write_run(tmp_path, [wrong])
    with pytest.raises(ResultsUnusable, match="'q0' of 'facts'"):
        measure_run(run)
