"""`gmr calibrate` of a run's scores: no network, and no run of another model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from model_store.checkpoint import resolve
from model_store.commands import calibrate
from model_store.evaluation.runs.identity import RunTask
from model_store.evaluation.runs.query_result import QueryResult
from model_store.manifest import manifest_digest
from tests.conftest import TINY
from tests.model_store.evaluation.reports.runs import identity, query_result, write_run

VERSION = f"sha256:{manifest_digest(TINY)}"
TABLE = (RunTask("T-T/Facts", "T-T", "mrr", ["facts"]),)
OWN = "Find what is asked for."


def gmr(*arguments: object) -> Result:
    app = typer.Typer()
    calibrate.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(folder: Path, queries: int = 48, *, checkpoint: str = VERSION, **changes: object) -> Path:
    """A run whose first half has the model's own instruction, and the other half one of its own."""
    results: list[QueryResult] = []
    for number in range(queries):
        made = query_result("facts", number, skill=2.0)
        fields = {"instruction": OWN if number >= queries / 2 else None} | changes
        results.append(msgspec.structs.replace(made, **fields))
    write_run(folder, results, identity(TABLE, checkpoint=checkpoint))
    return folder


def test_a_run_gives_a_map_for_each_instruction_and_failed_queries_give_nothing(
    tmp_path: Path,
) -> None:
    done = gmr(TINY, run(tmp_path / "run"), "--output", tmp_path / "new")
    assert done.exit_code == 0, done.output
    maps = resolve(str(tmp_path / "new")).calibration
    assert maps is not None
    default = resolve(str(TINY)).manifest.default_instruction
    assert [each.instruction for each in maps.maps] == [default, OWN]
    assert [each.evidence.queries for each in maps.maps] == [24, 24]

    again = gmr(TINY, tmp_path / "run", "--instruction", OWN)
    assert "24 queries, 480 pairs" in again.output
    assert default not in again.output


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"checkpoint": "sha256:" + "0" * 64}, "scores of another version fit no map of this one"),
        ({"checkpoint": ""}, "a version that it does not name"),
        ({"queries": 24}, "has 12 queries with a relevant document"),
        ({"instruction": msgspec.UNSET}, "did not keep the queries' instructions"),
        ({"scores": [None] * 20}, "there is no judged query with scores"),
        ({"instruction": "x" * 10_001}, "more than 10000 characters"),
    ],
)
def test_a_run_that_fits_no_map_is_one_sentence(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    folder = run(tmp_path / "run", **changes)
    done = gmr(TINY, folder, "--output", tmp_path / "new")
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_that_has_no_run_is_one_sentence(tmp_path: Path) -> None:
    done = gmr(TINY, tmp_path)
    assert done.exit_code == 1
    assert "there is no run in it (run.json is missing)" in done.stderr
