"""The catalogue against the paper and the installed mteb, and the paper's table 4 from table 14."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from typer.testing import CliRunner

from model_store.evaluation.tasks.aggregation import aggregate
from model_store.evaluation.tasks.benchmark import Task
from model_store.evaluation.tasks.catalogue import NAMES, read_table
from model_store.evaluation.tasks.instructions import TABLE_13
from model_store.evaluation.tasks.opening import open_benchmark
from model_store.evaluation.tasks.paper_systems import PaperSystem, paper_systems
from service.cli.main import app

CELLS = ("T-T", "I-I", "T-I", "T-VD", "I-T", "T-IT", "IT-T", "IT-I", "IT-IT")
TABLE_4 = {
    "GME-2B": (49.59, 30.75, 48.46, 66.39, 52.62, 77.02, 39.88, 36.70, 66.89, 52.54),
    "Qwen3": (60.49, *[None] * 9),
    "MonoQwen": (48.89, 12.59, 58.73, 71.29, 19.62, 76.46, 14.35, 31.75, 35.83, 44.20),
    "Jina-m0": (55.36, 27.50, 59.46, 73.13, 55.43, 74.95, 27.82, 37.65, 51.54, 54.36),
    "GMR-3B": (59.22, 29.76, 58.85, 72.38, 63.06, 81.96, 48.81, 43.97, 79.08, 61.40),
    "GMR-7B": (61.08, 32.83, 61.18, 72.94, 66.61, 84.55, 53.29, 47.39, 82.19, 63.85),
}
"""As the paper prints it; the last column is ALL."""
HIT_5 = {"Nights", "VisualNews", "WebQA", "EDIS", "OVEN", "INFOSEEK", "CIRR", "E-VQA"}
HIT_10 = {"Fashion200k", "FashionIQ", "OKVQA"}
MTEB_METRICS = {"ndcg@10": "ndcg_at_10", "ndcg@5": "ndcg_at_5", "recall@1": "recall_at_1"}


@pytest.mark.parametrize("system", paper_systems(), ids=lambda system: system.name)
def test_table_14_gives_table_4_to_its_rounding(system: PaperSystem) -> None:
    found = aggregate(open_benchmark("mrb").tasks, system.values)
    assert tuple(found.cells) == CELLS
    assert tuple(found.rows.values()) == (14, 1, 4, 5, 5, 2, 4, 2, 3)

    printed = TABLE_4[system.name]
    for value, rounded in zip([*found.cells.values(), found.score], printed, strict=True):
        # The print rounds some halves up and some down.
        assert value == (None if rounded is None else pytest.approx(rounded, abs=0.00501))


def test_the_papers_systems_have_values_of_mrb_alone() -> None:
    rows = {task.name for task in open_benchmark("mrb").tasks}
    assert [system.name for system in paper_systems()] == list(TABLE_4)
    assert all(system.values.keys() <= rows for system in paper_systems())
    assert sum(len(system.values) for system in paper_systems()) == 5 * 40 + 14
    assert paper_systems("mrb:T-I") == paper_systems()
    assert paper_systems("beir") == ()


def test_a_mean_over_a_row_without_a_value_is_no_number() -> None:
    table = [Task(name, name[0], "ndcg@10", ()) for name in ("a1", "a2", "b1")]
    found = aggregate(table, {"a1": 1.0, "a2": 0.0})
    assert found.cells == {"a": 0.5, "b": None}
    assert found.score is None
    assert aggregate(table, {"a1": 1.0, "a2": 0.0, "b1": 2.0}).score == 1.0


def test_mrb_is_the_papers() -> None:
    table = read_table("mrb")
    assert Counter(row.cell for row in table.tasks) == dict(
        zip(CELLS, (14, 1, 4, 5, 5, 2, 4, 2, 3), strict=True)
    )
    assert [row.name for row in table.tasks] == [row.name for row in TABLE_13]
    assert sum(row.queries or 0 for row in table.tasks) == 226_023

    for row in table.tasks:
        dataset = row.name.rpartition("/")[2]
        if dataset in HIT_5 | HIT_10:
            assert row.metric == ("hit@5" if dataset in HIT_5 else "hit@10")
        else:
            assert row.metric == ("ndcg@5" if row.cell == "T-VD" else "ndcg@10")


def test_a_task_has_the_papers_instruction() -> None:
    for task, row in zip(open_benchmark("mrb").tasks, TABLE_13, strict=True):
        assert {source.instruction for source in task.datasets} == {row.instruction}  # type: ignore[attr-defined]
    (scifact,) = open_benchmark("beir:scifact").tasks
    (source,) = scifact.datasets
    assert source.instruction.startswith("Given a scientific claim,")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "opened", "rows", "datasets"),
    [
        ("mrb", "mrb", 40, 51),
        ("MRB:t-i", "mrb:T-I", 4, 4),
        ("mrb:T-T/ArguAna", "mrb:T-T/ArguAna", 1, 1),
        ("mrb:oven", "mrb:OVEN", 2, 2),
        ("beir", "beir", 15, 26),
        ("beir:SciFact", "beir:scifact", 1, 1),
        ("beir:trec_covid", "beir:trec-covid", 1, 1),
        ("beir:cqadupstack", "beir:cqadupstack", 1, 12),
        ("bright", "bright", 12, 12),
        ("bright:coding", "bright:coding", 2, 2),
        ("bright-long", "bright-long", 8, 8),
        ("vidore-v3", "vidore-v3", 40, 240),
        ("vidore-v3:energy", "vidore-v3:energy", 4, 24),
        ("vidore-v3:bm25s", "vidore-v3:bm25s", 10, 60),
    ],
)
def test_a_name_opens_a_benchmark_or_a_part(
    name: str, opened: str, rows: int, datasets: int
) -> None:
    benchmark = open_benchmark(name)
    sources = [source for task in benchmark.tasks for source in task.datasets]
    assert (benchmark.name, len(benchmark.tasks), len(sources)) == (opened, rows, datasets)
    assert len({source.name for source in sources}) == datasets


def test_the_command_lists_names_that_open() -> None:
    listed = json.loads(invoke("eval", "tasks", "--json"))
    assert [row["name"] for row in listed] == list(NAMES)
    for benchmark in listed:
        rows = json.loads(invoke("eval", "tasks", benchmark["name"], "--json"))
        assert len(rows) == benchmark["tasks"]
        for row in rows:
            assert row["instruction"]
            (task,) = open_benchmark(row["name"]).tasks
            assert len({source.name for source in task.datasets}) >= len(row["datasets"])
    assert "mrb:T-I/VisualNews\tT-I\thit@5\t19995\t542246\tIdentify" in invoke(
        "eval", "tasks", "mrb:T-I"
    )


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_catalogue_is_that_of_the_installed_mteb() -> None:
    mteb = pytest.importorskip("mteb")
    checked = 0
    for name in NAMES:
        for row in read_table(name).tasks:
            for dataset in row.datasets:
                task = mteb.get_task(dataset.task)
                metadata = task.metadata
                assert metadata.dataset["revision"] == dataset.revision, dataset.task
                assert dataset.split in metadata.eval_splits
                assert set(dataset.subsets) <= set(task.hf_subsets)
                assert task.ignore_identical_ids == dataset.excludes_the_query
                assert row.private == metadata.dataset["path"].startswith("mteb-private/")
                if name != "mrb":
                    assert MTEB_METRICS[row.metric] == metadata.main_score
                checked += 1
    assert checked == 51 + 26 + 12 + 8 + 40
