"""`gmr eval report` and `gmr eval compare` on the command line: files, exit codes, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli.main import app
from tests.model_store.evaluation.reports.runs import all_results, identity, write_run


def gmr_eval(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def refused(result: Result, sentence: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"[^\n]+\.\n", result.stderr), result.stderr
    assert re.search(sentence, result.stderr), result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models, of which the weak one was scored in two shards."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "strong", all_results(skill=2.0))
    weak = all_results(skill=0.4)
    write_run(folder / "weak-0", weak[::2], shard=(0, 2))
    write_run(folder / "weak-1", weak[1::2], shard=(1, 2))
    return folder


def test_shards_are_reported_together_and_compared_with_a_run(folder: Path) -> None:
    reported = gmr_eval("report", folder / "weak-0", folder / "weak-1")
    assert reported.exit_code == 0, reported.output
    assert "my-reranker on small: " in reported.stdout
    assert "not finished" not in reported.stdout
    page = (folder / "weak-0" / "report" / "report.md").read_text(encoding="utf-8")
    assert "| Queries | 120 |" in page

    output = folder / "comparison"
    compared = gmr_eval(
        "compare", folder / "weak-0" / "report", folder / "strong", "--output", output
    )
    assert compared.exit_code == 0, compared.output
    assert compared.stdout.startswith("# B is better than A on small-")
    assert (output / "comparison.md").read_text(encoding="utf-8") == compared.stdout


def test_a_shard_alone_is_said_to_be_a_part(folder: Path, tmp_path: Path) -> None:
    reported = gmr_eval("report", folder / "weak-1", "--output", tmp_path / "out")
    assert reported.exit_code == 0
    assert "The run is not finished: 60 of 120 queries" in reported.stdout
    refused(gmr_eval("compare", folder / "strong", tmp_path / "out"), "not of the same candidates")


def test_worse_is_an_exit_code_where_it_is_asked_for(folder: Path) -> None:
    report = gmr_eval("report", folder / "weak-0", folder / "weak-1", "--output", folder / "weak")
    assert report.exit_code == 0
    for options, code in ((("--fail-if-worse",), 1), ((), 0)):
        compared = gmr_eval("compare", folder / "strong", folder / "weak", *options)
        assert compared.exit_code == code
        assert "B is worse than A" in compared.stdout
    assert gmr_eval("compare", folder / "weak", folder / "strong", "--fail-if-worse").exit_code == 0


def test_what_cannot_be_reported_or_compared_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    refused(gmr_eval("report", tmp_path), "there is no run in it")
    refused(gmr_eval("compare", folder / "strong", tmp_path), "neither a run")
    write_run(tmp_path / "other", all_results(), identity(model_digest="sha256:" + "0" * 64))
    refused(gmr_eval("report", folder / "strong", tmp_path / "other"), "no part of the run")
    assert gmr_eval("report").exit_code == 2
    assert gmr_eval("report", folder / "strong", "--metric", "precision@5").exit_code == 2


def test_a_run_is_reported_by_another_metric(folder: Path, tmp_path: Path) -> None:
    ended = gmr_eval("report", folder / "strong", "--metric", "mrr@3", "--output", tmp_path)
    assert ended.exit_code == 0
    assert "my-reranker on small: mrr@3 " in ended.stdout
    assert "| T-I/News | mrr@3 |" in (tmp_path / "report.md").read_text(encoding="utf-8")
