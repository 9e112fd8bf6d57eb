"""`gmr eval --task` against a running service: the nine cells, runs that are killed, shards, and
refusals."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from model_store.checkpoint import resolve
from model_store.evaluation.metrics import ndcg, ranked
from model_store.evaluation.nine_cells import question
from model_store.evaluation.runs.folder import open_run
from model_store.evaluation.runs.query_result import QueryResult
from model_store.manifest import manifest_digest
from model_store.recipes.tiny.scoring import open_scorer
from model_store.synthetic.cells import CELLS
from tests.cli.evaluation.folders import SECONDS, gmr_eval, write_folder
from tests.conftest import CALM, TINY, free_port, started


def results(*folders: Path) -> dict[str, QueryResult]:
    listed = list(open_run(*folders).results())
    found = {result.query: result for result in listed}
    assert len(found) == len(listed)
    return found


def expect_equal(found: dict[str, QueryResult], expected: dict[str, QueryResult]) -> None:
    """Equal but for the last bits of scores, and for what the cache had."""
    assert found.keys() == expected.keys()
    for query, result in found.items():
        other = expected[query]
        assert (result.candidates, result.grades) == (other.candidates, other.grades)
        assert result.scores == pytest.approx(other.scores, abs=1e-4)
        assert not result.error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tasks") / "rows", 120)


@pytest.fixture(scope="module")
def whole(folder: Path, server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an evaluation that was not interrupted."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    ended = gmr_eval("--task", folder, "--run", run, "--url", server, "--token-price", 5)
    assert ended.returncode == 0, ended.stderr
    assert "120 of 120 queries" in ended.stderr
    assert "Scored 120 queries: 360 pairs" in ended.stdout
    assert "prompt tokens, which cost 0." in ended.stdout
    assert f"The report is {run / 'report' / 'report.md'}." in ended.stdout
    return run


@pytest.mark.slow
def test_the_nine_cells_through_a_service_have_the_scores_of_this_process(
    server: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = gmr_eval("--task", "nine-cells", "--queries", 1, "--run", run, "--url", server)
    assert ended.returncode == 0, ended.stderr

    opened = open_run(run)
    assert opened.identity.benchmark == "nine-cells-1"
    assert opened.identity.checkpoint == f"sha256:{manifest_digest(TINY)}"
    assert opened.identity.datasets == list(CELLS)
    score = open_scorer(resolve("gmr-tiny"))
    for cell in ("T-T", "I-T", "IT-IT"):
        (result,) = opened.results(cell)
        ((relevant, *others),) = score([question(cell, 0)])
        numbers = [int(name.rpartition("/")[2]) for name in result.candidates]
        by_number = [relevant, *others]
        assert result.scores == pytest.approx([by_number[number] for number in numbers], abs=1e-3)
        assert result.grades == [int(number == 0) for number in numbers]
        value = ndcg(ranked(result.scores, result.grades), 10)
        in_process = ndcg(ranked([*others, relevant], [0] * len(others) + [1]), 10)
        assert value == pytest.approx(in_process)


def test_a_run_names_its_model_and_its_table(whole: Path, client: httpx.Client) -> None:
    identity = open_run(whole).identity
    info = client.get("/info").json()
    assert (identity.model, identity.model_digest) == ("gmr-tiny", info["model_digest"])
    assert identity.checkpoint == info["version"]
    assert [(task.name, task.metric) for task in identity.tasks] == [("rows", "ndcg@10")]
    found = results(whole)
    assert found["q7"].candidates == ["d0", "d1", "d2"]
    assert (found["q7"].grades, found["q7"].ideal) == ([1, 0, 0], [1])
    assert all(result.prompt_tokens > 0 for result in found.values())


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_continues_and_loses_and_doubles_nothing(
    folder: Path, whole: Path, server: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["--task", str(folder), "--run", str(run), "--url", server]
    command = [sys.executable, "-m", "service.cli", "eval", *arguments, "--concurrency", "2"]
    dice = random.Random(7)
    kills, counts = 0, [0]
    for _ in range(8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        more = dice.randrange(0, 20)  # results after which it is killed
        while process.poll() is None and _lines(run) < counts[-1] + more:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        counts.append(_lines(run))
    assert kills > 3
    assert counts[-1] > 0
    ended = gmr_eval(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert _lines(run) == 120
    expect_equal(results(run), results(whole))


def _lines(run: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in run.glob("datasets/*/results-*.jsonl"))


@pytest.mark.slow
def test_shards_and_ray_have_the_results_of_one_process(
    folder: Path, whole: Path, server: str, tmp_path: Path
) -> None:
    task = ("--task", folder, "--url", server)
    for shard in (0, 1):
        run = tmp_path / f"part{shard}"
        ended = gmr_eval(*task, "--run", run, "--shard", f"{shard}/2")
        assert ended.returncode == 0, ended.stderr
    expect_equal(results(tmp_path / "part0", tmp_path / "part1"), results(whole))
    assert 30 < len(results(tmp_path / "part0")) < 90

    ended = gmr_eval(*task, "--run", tmp_path / "ray", "--ray", 2, **CALM)
    assert ended.returncode == 0, ended.stderr
    assert "Scored 120 queries: 360 pairs" in ended.stdout
    expect_equal(results(tmp_path / "ray"), results(whole))


def test_queries_and_documents_that_the_service_refuses_are_said_so(
    server: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "bad", 3)
    rows = [{"_id": "d0", "text": "text 0"}, {"_id": "d1", "text": ""}, {"_id": "d2", "text": "x"}]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": f"q{number}", "text": f"row {number}"} for number in range(3)]
    queries[1]["text"] = "long " * 30_000
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))

    ended = gmr_eval("--task", folder, "--run", tmp_path / "run", "--url", server)
    assert ended.returncode == 1
    assert "The service refused 2 documents, which rank last; the first one: " in ended.stdout
    assert "1 query has no scores; the first one is q1: " in ended.stderr
    found = results(tmp_path / "run")
    assert found["q0"].scores[1] is None
    assert found["q0"].refusal
    assert found["q1"].scores == [None] * 3
    assert found["q1"].error


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("--task", "none", "--url", "URL"),
            1,
            "There is no benchmark and no folder 'none': known are nine-cells, mrb",
        ),
        (("--task", "FOLDER", "--url", "http://127.0.0.1:9"), 1, "Nothing answers at"),
        (("--task", "FOLDER", "--url", "URL", "--model", "other"), 1, "No such model"),
        (("--task", "FOLDER", "--url", "URL", "--shard", "2/2"), 2, "A --shard is I/N with I from"),
        (("--task", "FOLDER", "--url", "URL", "--first-stage", "none"), 1, "no first stage 'none'"),
        (("--task", "FOLDER"), 2, "Missing option '--run'"),
        (("--task", "FOLDER", "--shard", "0/2", "--ray", "2"), 2, "give it or --shard, not both"),
        (("--task", "FOLDER", "--shard", "0/2", "--gpus", "1"), 2, "give --ray, too"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    arguments: tuple[str, ...], code: int, sentence: str, folder: Path, server: str, tmp_path: Path
) -> None:
    places = {"URL": server, "FOLDER": str(folder)}
    run = () if code == 2 and "--shard" not in arguments else ("--run", tmp_path / "run")
    ended = gmr_eval(*(places.get(each, each) for each in arguments), *run)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_of_something_else_is_refused_with_what_differs(
    folder: Path, whole: Path, server: str
) -> None:
    ended = gmr_eval("--task", folder, "--run", whole, "--url", server, "--top-k", 2)
    assert ended.returncode == 1
    assert "holds another run: its top_k is 100, not 2; give another folder." in ended.stderr


def test_the_commands_of_eval_that_need_not_be_named(tmp_path: Path) -> None:
    listed = gmr_eval("--help").stdout
    assert "benchmark" in listed
    assert "checkpoint" in listed
    assert "--first-stage" in gmr_eval("--task=x", "--help").stdout
    assert "Measure a checkpoint, query by query" in gmr_eval(TINY, "--help").stdout


@pytest.mark.slow
def test_a_full_service_is_waited_for_and_another_model_ends_the_run(
    server: str, tmp_path: Path
) -> None:
    folder, run = write_folder(tmp_path / "rows", 60), tmp_path / "run"
    port = free_port()
    full = {"RERANK_CAPACITY_TOKENS": "1", "RERANK_MAX_QUEUED_REQUESTS": "0"}
    options = {"port": port, "log": tmp_path / "log", "python": sys.executable}
    arguments = ("--task", str(folder), "--run", str(run), "--concurrency", "4")
    command = [sys.executable, "-m", "service.cli", "eval", *arguments, "--url"]
    with started("serve", **options, **CALM, **full) as (url, served):
        evaluating = subprocess.Popen([*command, url], stderr=subprocess.PIPE, text=True)
        while evaluating.poll() is None and _lines(run) < 8:
            time.sleep(0.01)
        metrics = httpx.get(f"{url}/metrics").text
        served.kill()
    assert 'rerank_errors_total{code="overloaded"}' in metrics
    assert evaluating.poll() is None

    with started("serve", "--model", "gmr-tiny-d", **options, **CALM):
        _, complaint = evaluating.communicate(timeout=SECONDS)
    assert evaluating.returncode == 1
    assert "The service's model has changed from sha256:" in complaint
    assert f"What was scored is in {run}; the same command continues." in complaint
    assert "failed" not in complaint
    before = results(run)
    assert 8 <= len(before) < 60

    ended = gmr_eval(*arguments, "--url", server)  # the old model, elsewhere
    assert ended.returncode == 0, ended.stderr
    after = results(run)
    assert len(after) == 60
    assert before.items() <= after.items()
