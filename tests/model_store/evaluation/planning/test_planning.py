"""The plan of an evaluation: its sizes against mteb's, its storage against a run's own files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from model_store.evaluation.planning.benchmark import plan_benchmark
from model_store.evaluation.planning.plan import Assumptions, Machine, plan_dataset
from model_store.evaluation.planning.sizes import DatasetSize, read_sizes, size_of
from model_store.evaluation.runs.candidates import write_candidates
from model_store.evaluation.runs.journal import Journal
from model_store.evaluation.runs.query_result import QueryResult
from model_store.evaluation.tasks.catalogue import NAMES, named_benchmark
from model_store.evaluation.tasks.opening import open_benchmark
from model_store.evaluation.tasks.readers.mteb_source import MtebSource
from model_store.sizing.network import network_cost
from model_store.sizing.plan import GPUS, Load, plan
from model_store.sizing.plan import Assumptions as LoadAssumptions
from service.cli.main import app
from tests.model_store.evaluation.first_stages.datasets import dataset_of
from tests.model_store.training.rows import draw, write_rows

H100 = Machine(network_cost("gmr-3b"), GPUS["h100"])


def size(*arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


def statistics() -> dict[str, dict[str, Any]]:
    """mteb's own figures by `TASK/SPLIT/SUBSET`, without importing it."""
    spec = find_spec("mteb")
    assert spec
    assert spec.submodule_search_locations
    found: dict[str, dict[str, Any]] = {}
    for path in Path(spec.submodule_search_locations[0], "descriptive_stats").rglob("*.json"):
        for split, figures in json.loads(path.read_text(encoding="utf-8")).items():
            found[f"{path.stem}/{split}/default"] = figures
            subsets = figures.get("hf_subset_descriptive_stats") or {}
            for subset, part in subsets.items():
                found[f"{path.stem}/{split}/{subset}"] = part
    return found


def test_sizes_are_those_that_mteb_publishes() -> None:
    published = statistics()
    for name, ours in read_sizes().items():
        figures = published[name]
        for side, characters, pixels in (
            ("queries", ours.query_characters, ours.query_pixels),
            ("documents", ours.document_characters, ours.document_pixels),
        ):
            texts = figures.get(f"{side}_text_statistics")
            if characters:
                assert characters == round(texts["average_text_length"]), name
            images = figures.get(f"{side}_image_statistics")
            if pixels:
                mean = images["average_image_width"] * images["average_image_height"]
                assert pixels == round(mean), name
            assert characters or pixels, name
        if ours.candidates is not None:
            ranked = figures["top_ranked_statistics"]
            assert ours.candidates == ranked["average_top_ranked_per_query"], name
            count = figures.get(f"num_{side}")
            assert count in (None, ours.queries if side == "queries" else ours.documents), name


def test_every_public_dataset_of_the_catalogue_has_a_size() -> None:
    for name in NAMES:
        for task in named_benchmark(name).tasks:
            for source in task.datasets:
                assert isinstance(source, MtebSource)
                assert source.private or size_of(source) is not None, source


def test_mrb_is_planned_with_its_22_million_pairs() -> None:
    planned = json.loads(size("gmr-3b", "--task", "mrb", "--first-stage", "gme", "--json"))
    assert planned["total"]["queries"] == 226_023
    assert planned["total"]["pairs"] == 22_602_300
    assert planned["unknown"] == []
    assert len(planned["cells"]) == 9
    for field, total in planned["total"].items():
        assert total == pytest.approx(sum(cell[field] for cell in planned["cells"].values()))
    assert planned["first_stage"]["documents"] > 33_000_000
    assert planned["first_stage"]["bytes"] == planned["first_stage"]["documents"] * 1536 * 4
    assert planned["all_gpu_hours"] > planned["gpu_hours"] > 0


def test_a_measured_rate_gives_the_time_and_the_price_of_it() -> None:
    shown = size("--task", "mrb", "--pairs-per-second", "500", "--price", "4", "--gpus", "8")
    hours = 22_602_300 / 500 / 3600 / 0.9
    assert f"{hours:.1f} GPU hours (as measured), {hours / 8:.1f} hours on 8 GPUs" in shown
    assert f"cost       {4 * hours:.2f} for {hours:.1f} GPU hours at 4.00 an hour" in shown


def test_text_takes_the_time_of_the_same_load() -> None:
    assumptions = Assumptions()
    part = plan_dataset(DatasetSize(1, 1_000, 86, 559, 0, 0), 100, H100, assumptions)
    load = Load(1, 100, query_tokens=20 + assumptions.template_tokens, document_tokens=130)
    fleet = plan(H100.network, H100.gpu, load, LoadAssumptions())
    assert part.gpu_seconds == pytest.approx(fleet.request_seconds)


@given(
    queries=st.integers(1, 1_000),
    documents=st.integers(1, 1_000),
    pixels=st.integers(0, 5_000_000),
    top_k=st.integers(1, 500),
)
def test_pairs_are_bounded_and_more_of_them_take_no_less(
    queries: int, documents: int, pixels: int, top_k: int
) -> None:
    size = DatasetSize(queries, documents, 50, 500, 0, pixels)
    part = plan_dataset(size, top_k, H100, Assumptions())
    assert part.pairs == queries * min(top_k, documents)
    more = plan_dataset(size, top_k + 1, H100, Assumptions())
    assert more.gpu_seconds >= part.gpu_seconds > 0


def test_the_bytes_of_a_pair_are_those_of_a_runs_files(tmp_path: Path) -> None:
    queries, candidates = 50, [f"{1_000_003 * n % 100_000_000:08d}" for n in range(100)]
    with Journal(tmp_path / "journal") as journal:
        for query in range(queries):
            scores: list[float | None] = [1 / 3 - n / 7 for n in range(100)]
            result = QueryResult("set", f"{query}", candidates, scores, [0] * 100, [1])
            journal.append(result)
    dataset = dataset_of([f"{query}" for query in range(queries)], candidates)
    found = {f"{query}": candidates for query in range(queries)}
    write_candidates(tmp_path / "candidates", dataset, found)
    written = sum(path.stat().st_size for path in tmp_path.iterdir()) / (queries * 100)
    assert Assumptions().pair_bytes == pytest.approx(written, rel=0.2)


def test_a_folder_is_measured(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.png", "red", (60, 40))
    write_rows(
        tmp_path / "corpus.jsonl",
        [{"_id": "d0", "text": "x" * 100}, {"_id": "d1", "image": "images/a.png"}],
    )
    write_rows(tmp_path / "queries.jsonl", [{"_id": "q0", "text": "y" * 40}])
    qrels = tmp_path / "qrels" / "test.tsv"
    qrels.parent.mkdir()
    qrels.write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n", encoding="utf-8")
    (task,) = open_benchmark(str(tmp_path)).tasks
    assert size_of(task.datasets[0]) == DatasetSize(1, 2, 40, 50, 0, 1_200)
    planned = plan_benchmark(open_benchmark(str(tmp_path)), 100, "bm25", H100)
    assert (planned.total.pairs, planned.first_stage is not None) == (2, True)
    assert "1 queries, 2 pairs of up to 100 candidates" in size("--task", str(tmp_path))


@pytest.mark.parametrize(
    ("task", "pairs"), [("nine-cells", 9 * 50 * 20), ("vidore-v3:energy/bm25s", 6 * 308 * 50)]
)
def test_candidates_that_come_with_the_data_bound_the_pairs(task: str, pairs: int) -> None:
    assert plan_benchmark(open_benchmark(task), 100, "own", H100).total.pairs == pairs
    assert plan_benchmark(open_benchmark(task), 10, "own", H100).total.pairs < pairs


@pytest.mark.parametrize(
    ("arguments", "sentence", "exit_code"),
    [
        (["--task", "mbr"], "There is no benchmark and no folder 'mbr'", 1),
        (["--task", "mrb", "--requests", "4"], "--requests does not fit --task.", 2),
        (["--gpus", "4"], "--gpus belongs to --task and --train.", 2),
        (["--task", "mrb", "--first-stage", "bm52"], "--first-stage of a plan is one of own", 2),
        (["--task", "mrb", "--top-k", "1001"], "'--top-k'", 2),
        (["qwen3-reranker-4b", "--task", "mrb"], "qwen3-reranker-4b reads text only", 2),
        (["--task", "vidore-v3:telecom/bm25s"], "the sizes of none of its datasets are known", 1),
    ],
)
def test_a_plan_without_sense_is_refused(
    arguments: list[str], sentence: str, exit_code: int
) -> None:
    assert sentence in size(*arguments, exit_code=exit_code)


def test_data_whose_size_is_not_known_is_named() -> None:
    assert "not in it  36 datasets whose sizes are not known, such as Vidore3Telecom" in size(
        "--task", "vidore-v3", "--top-k", "50"
    )
