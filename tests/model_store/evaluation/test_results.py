"""Results come back as they were written; anything else is one sentence that names the file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from model_store.evaluation.results import (
    MAX_QUERIES,
    MAX_RESULT_BYTES,
    Results,
    ResultsUnusable,
    read_results,
    write_results,
)
from tests.model_store.disk import file_size_limit

GIVEN = {
    "schema_version": 1,
    "benchmark": "b-1",
    "metric": "ndcg@10",
    "checkpoint": "sha256:" + "a" * 64,
    "datasets": {"x": {"q1": 0.5, "q2": 1}, "y": {"q1": 0}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


def refusal(file: Path) -> str:
    with pytest.raises(ResultsUnusable) as caught:
        read_results(file)

    sentence = str(caught.value)

    assert re.fullmatch(r"results\.json [^\n]+\.", sentence)
    return sentence


def test_the_bounds_are_above_the_largest_benchmark() -> None:
    """MRB (the paper's table 9), with ids of 256 characters."""
    assert MAX_QUERIES > 226_023
    assert MAX_RESULT_BYTES > 226_023 * 290


def test_a_table_reads_back_and_fields_that_are_absent_are_not_written(file: Path) -> None:
    table = {
        "r": {"cell": "T-T", "metric": "hit@5", "datasets": ["x", "y"]},
    }
    written = Results.model_validate(GIVEN | {"rows": table, "model": "m", "failed": 3})
    write_results(file, written)
    assert read_results(file) == written
    assert written.table == {"r": ["x", "y"]}

    write_results(file, Results.model_validate(GIVEN))
    assert json.loads(file.read_text(encoding="utf-8")) == GIVEN


def test_they_read_back(file: Path) -> None:
    written = Results.model_validate(GIVEN)
    write_results(file, written)

    assert read_results(file) == written
    assert written.score == (0.75 + 0) / 2
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"extra": 1}, "extra"),
        ({"benchmark": "../b"}, "benchmark"),
        ({"checkpoint": "latest"}, "checkpoint"),
        ({"datasets": {}}, "datasets"),
        ({"datasets": {"x": {}}}, "no queries"),
        ({"datasets": {"x": {"q": "high"}}}, "datasets/x/q"),
        ({"datasets": {"x": {"q": 1e30}}}, "datasets/x/q"),
        ({"datasets": {"x": {"": 1}}}, "datasets/x"),
        ({"rows": {"r": {"cell": "", "metric": "mrr", "datasets": ["x"]}}}, "each dataset once"),
        ({"rows": {"r": {"cell": "", "metric": "mrr", "datasets": ["x", "z"]}}}, "each dataset"),
        ({"candidates": {"x": "sha256:" + "a" * 64}}, "the candidates are not those"),
        ({"failed": -1}, "failed"),
    ],
)
def test_what_is_wrong_is_named(file: Path, change: dict[str, object], sentence: str) -> None:
    file.write_text(json.dumps(GIVEN | change), encoding="utf-8")
    assert sentence in refusal(file)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", json.dumps(GIVEN).replace("0.5", "NaN"), "\0"]
)
def test_what_is_no_results_is_refused(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    assert refusal(file)


def test_no_file_and_a_folder_are_refused(file: Path) -> None:
    assert "cannot be read" in refusal(file)
    file.mkdir()
    assert "cannot be read" in refusal(file)


def test_bounds_hold(file: Path) -> None:
    many = {f"q{number}": 0.5 for number in range(MAX_QUERIES + 1)}
    file.write_text(json.dumps(GIVEN | {"datasets": {"x": many}}), encoding="utf-8")

    assert f"more than {MAX_QUERIES} queries" in refusal(file)

    with file.open("wb") as large:
        large.truncate(MAX_RESULT_BYTES + 1)

    assert f"larger than {MAX_RESULT_BYTES} bytes" in refusal(file)


def test_a_disk_that_takes_no_more_leaves_what_was_there(file: Path) -> None:
    write_results(file, Results.model_validate(GIVEN))
    many = Results.model_validate(
        GIVEN | {"datasets": {"x": {f"q{number}": 0.5 for number in range(1000)}}}
    )

    with file_size_limit(2000), pytest.raises(ResultsUnusable, match="cannot be written"):
        write_results(file, many)
    assert read_results(file) == Results.model_validate(GIVEN)
    assert list(file.parent.iterdir()) == [file]
