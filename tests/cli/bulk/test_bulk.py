"""`gmr bulk` against a running service: rows of JSON and Parquet, pictures, failures, runs that are
killed, shards, and refusals."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from model_store.errors import DataError
from service.cli.bulk.job import Job, folder_of
from service.cli.bulk.output import write_output
from service.cli.bulk.requests import RowShape, Scores
from service.cli.bulk.run import Plan, finish
from service.cli.bulk.sources import open_source
from service.cli.client.run import Target
from tests.cli.client.answers import answer, scripted
from tests.conftest import CALM

Rows = Sequence[dict[str, Any]]
SECONDS = 300


def bulk(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "bulk", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | environment,
    )


def write_rows(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    return file.getvalue()


def some_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"key": f"k{number}", "query": f"row {number}", "documents": [f"text {number}", "other"]}
        for number in range(count)
    ]


def test_rows_get_the_scores_of_single_requests_and_keep_their_own_fields(
    tmp_path: Path, server: str, client: httpx.Client
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "red.png").write_bytes(picture("red"))
    encoded = base64.b64encode(picture("blue")).decode()
    rows = [
        {
            "key": {"a": 1},
            "query": "a red square",
            "documents": ["red", {"text": "blue", "id": "x"}],
        },
        {
            "key": 2**60,
            "query": {"image": "pictures/red.png"},
            "documents": [{"image": f"data:image/png;base64,{encoded}"}, {"image": encoded}, "red"],
            "instruction": "Find a text about the picture.",
        },
        {"query": "nothing was found", "documents": []},
    ]
    out = tmp_path / "out.jsonl"
    ended = bulk(write_rows(tmp_path / "in.jsonl", rows), out, "--url", server)
    assert ended.returncode == 0, ended.stderr
    assert "3 rows are in out.jsonl." in ended.stdout
    found = read_rows(out)

    assert [row.get("key") for row in found] == [{"a": 1}, 2**60, None]
    assert [row["row"] for row in found] == [0, 1, 2]
    assert not {"query", "documents"} & found[0].keys()
    assert found[1]["instruction"] == rows[1]["instruction"]
    assert found[2]["scores"] == found[2]["errors"] == []
    sent = dict(rows[1], query={"image": base64.b64encode(picture("red")).decode()})
    del sent["key"]
    for row, body in ((found[0], {**rows[0]}), (found[1], sent)):
        body.pop("key", None)
        results = client.post("/rerank", json=body).json()["results"]
        for result in results:
            assert row["scores"][result["index"]] == pytest.approx(
                result["relevance_score"], abs=1e-4
            )
            assert row["logits"][result["index"]] == pytest.approx(result["logit"], abs=1e-3)
    assert not (tmp_path / "out.jsonl.parts").exists()


def test_rows_and_candidates_that_fail_are_in_the_output_with_their_errors(
    tmp_path: Path, server: str
) -> None:
    source = tmp_path / "in.jsonl"
    good = {"query": "q", "documents": ["d"]}
    many = {"query": "q", "documents": ["d"] * 1_001}
    lines: list[Any] = [
        good,
        "{",
        [1],
        {"documents": ["d"]},
        {"query": "q", "documents": "d"},
        {"query": "", "documents": ["d"]},
        {"query": {"image": "none.png"}, "documents": ["d"]},
        {"query": "q", "documents": ["d", "", {"imag": "x"}, {"image": "none.png"}, None, "e"]},
        {"query": "q", "documents": ["d"], "scores": [1]},
        many,
    ]
    source.write_text(
        "\n\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    )
    out = tmp_path / "out.jsonl"
    ended = bulk(source, out, "--url", server)
    assert ended.returncode == 1
    assert "7 rows have an error instead of scores, and 4 candidates" in ended.stderr
    assert "Traceback" not in ended.stderr

    rows = read_rows(out)
    codes = [row["error"] and row["error"]["code"] for row in rows]
    invalid = "invalid_row"
    assert codes == [
        *(None, invalid, invalid, invalid, invalid, "empty_item"),
        *("unreadable_file", None, invalid, None),
    ]
    assert [score is None for score in rows[7]["scores"]] == [False, True, True, True, True, False]
    assert [error["index"] for error in rows[7]["errors"]] == [1, 2, 3, 4]
    assert rows[7]["errors"][1]["message"].startswith("documents[2].imag ")
    assert len(rows[9]["scores"]) == 1_001
    assert None not in rows[9]["scores"]

    ended = bulk(source, out, "--url", server, "--overwrite", "--allow-errors")
    assert ended.returncode == 0


def test_parquet_with_pictures_as_bytes(tmp_path: Path, server: str) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    rows = [
        {
            "id": number,
            "when": number * 1.5,
            "question": f"a {colour} square",
            "passages": [
                {"text": None, "image": {"bytes": picture(colour), "path": None}},
                {"text": colour, "image": None},
            ],
        }
        for number, colour in enumerate(["red", "blue", "green"] * 5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), source, row_group_size=4)
    names = ("--query-field", "question", "--documents-field", "passages")
    ended = bulk(source, out, "--url", server, *names, "--rows-per-part", 3)
    assert ended.returncode == 0, ended.stderr
    table = pq.read_table(out)
    assert table.column_names[:4] == ["id", "when", "row", "scores"]
    assert table.column_names[4:] == ["logits", "probabilities", "errors", "error"]
    assert table["id"].to_pylist() == table["row"].to_pylist() == list(range(15))
    assert all(len(scores) == 2 and None not in scores for scores in table["scores"].to_pylist())

    ended = bulk(source, tmp_path / "out.jsonl", "--url", server, *names)
    assert ended.returncode == 0, ended.stderr
    written = read_rows(tmp_path / "out.jsonl")
    for row, scores in zip(written, table["scores"].to_pylist(), strict=True):
        assert row["scores"] == pytest.approx(scores, abs=1e-4)


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_continues_and_loses_and_doubles_nothing(
    tmp_path: Path, server: str
) -> None:
    source = write_rows(tmp_path / "in.jsonl", some_rows(400))
    command = [sys.executable, "-m", "service.cli", "bulk", str(source)]
    options = ["--url", server, "--rows-per-part", "16"]
    whole = tmp_path / "whole.jsonl"
    assert bulk(source, whole, *options).returncode == 0

    out, parts = tmp_path / "out.jsonl", tmp_path / "out.jsonl.parts"
    dice = random.Random(7)
    kills = 0
    for _ in range(8):
        process = subprocess.Popen(
            [*command, str(out), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = len(list(parts.glob("*")))
        while process.poll() is None and len(list(parts.glob("*"))) < before + 2:
            time.sleep(0.01)
        try:
            process.wait(timeout=dice.uniform(0.0, 0.2))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills
    if not out.exists():
        ended = bulk(source, out, *options)
        assert ended.returncode == 0, ended.stderr
    rows, expected = read_rows(out), read_rows(whole)
    assert [row["key"] for row in rows] == [row["key"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["scores"] == pytest.approx(other["scores"], abs=1e-4)
    assert not parts.exists()


def test_shards_are_put_together_by_a_run_without_one(tmp_path: Path, server: str) -> None:
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(20)), tmp_path / "out.jsonl"
    options = ("--url", server, "--rows-per-part", 4)
    for shard in ("1/3", "0/3"):
        ended = bulk(source, out, *options, "--shard", shard)
        assert ended.returncode == 0, ended.stderr
        assert not out.exists()
    before = {path.name for path in (tmp_path / "out.jsonl.parts").glob("*.jsonl")}
    assert before == {f"{part:06d}.jsonl" for part in (0, 1, 3, 4)}
    ended = bulk(source, out, *options)
    assert ended.returncode == 0, ended.stderr
    assert "scoring: 20 of 20 rows" in ended.stderr
    assert [row["key"] for row in read_rows(out)] == [f"k{number}" for number in range(20)]
    assert bulk(source, out, *options, "--shard", "3/3").returncode == 2


def test_a_row_that_the_service_cannot_read_fails_alone(tmp_path: Path, server: str) -> None:
    """A lone surrogate and NaN: no JSON for the service, so that it finds no id in the line."""
    rows = some_rows(6)
    rows[1]["documents"] = ["\ud800", "other"]
    rows[3]["query"] = float("nan")
    rows[4]["key"] = "\ud800"
    source, out = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    ended = bulk(source, out, "--url", server)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("2 rows have an error")

    found = read_rows(out)
    assert [row["error"] and row["error"]["code"] for row in found] == [
        None,
        "invalid_request",
        None,
        "invalid_request",
        None,
        None,
    ]
    assert found[4]["key"] == "\ud800"


def test_parquet_has_the_fields_of_every_row(tmp_path: Path, server: str) -> None:
    rows = some_rows(5)
    del rows[0]["key"]
    rows[3]["note"] = "later"
    source, out = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet"
    ended = bulk(source, out, "--url", server, "--rows-per-part", "2")
    assert ended.returncode == 0, ended.stderr

    table = pq.read_table(out)
    assert table["key"].to_pylist() == [None, "k1", "k2", "k3", "k4"]
    assert table["note"].to_pylist() == [None, None, None, "later", None]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("\ud800", "a row has text that is not Unicode"),
        (10**30, "no common type for Parquet"),
        ({}, "no common type for Parquet"),
    ],
)
def test_fields_that_parquet_cannot_hold_are_one_sentence(
    value: Any, sentence: str, tmp_path: Path
) -> None:
    source, out = write_rows(tmp_path / "in.jsonl", [{"key": value}]), tmp_path / "out.parquet"
    job = Job(open_source(source, 1_000), out, {})

    async def score(rows: object) -> list[Scores]:
        return [Scores()]

    asyncio.run(job.do(0, score))
    with pytest.raises(DataError, match=sentence):
        write_output(job, out, RowShape(), keep_inputs=False)
    assert not out.exists()


def test_an_input_that_changes_while_it_is_scored_gives_no_output(
    tmp_path: Path, server: str
) -> None:
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(4)), tmp_path / "out.jsonl"
    assert bulk(source, out, "--url", server, "--shard", "0/1").returncode == 0
    write_rows(source, some_rows(4)[::-1])
    with pytest.raises(DataError, match="has changed"):
        finish(Plan(source, out, RowShape(), Target(server), 1_000, 1))
    assert not out.exists()


def test_parts_that_another_run_removed_do_not_come_back(tmp_path: Path) -> None:
    """Two runs of one output at once: the slower one would leave a part of unknown work."""
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(1)), tmp_path / "out.jsonl"
    job = Job(open_source(source, 1_000), out, {"input": "a"})

    async def score_slowly(rows: object) -> list[Scores]:
        job.remove()
        return [Scores()]

    with pytest.raises(DataError, match="removed it meanwhile"):
        asyncio.run(job.do(0, score_slowly))
    assert not folder_of(out).exists()

    folder_of(out).mkdir()
    (folder_of(out) / "000000.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"parts without run\.json"):
        Job(open_source(source, 1_000), out, {"input": "a"})


CHANGES: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "input": lambda source: (write_rows(source, some_rows(9)), ())[1],
    "options": lambda source: ("--instruction", "Another task."),
    "rows per part": lambda source: ("--rows-per-part", "5"),
    "fields": lambda source: ("--query-field", "key"),
}


@pytest.mark.parametrize("differing", CHANGES)
def test_a_run_of_something_else_is_refused_with_what_differs(
    differing: str, tmp_path: Path, server: str
) -> None:
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(8)), tmp_path / "out.jsonl"
    options = ("--url", server, "--rows-per-part", "4")
    assert bulk(source, out, *options, "--shard", "0/2").returncode == 0
    ended = bulk(source, out, *options, *CHANGES[differing](source))
    assert ended.returncode == 1
    assert f"({differing} differ)" in ended.stderr
    assert not out.exists()


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, server: str) -> None:
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(1)), tmp_path / "out.jsonl"
    taken = write_rows(tmp_path / "taken.jsonl", [])
    for arguments, code, sentence in (
        ((tmp_path / "none.jsonl", out, "--url", server), 1, "No such file"),
        ((source, out, "--url", "http://127.0.0.1:9"), 1, "Nothing answers"),
        ((source, out, "--url", server, "--model", "other"), 1, "No such model"),
        ((source, tmp_path / "out.csv", "--url", server), 2, ".jsonl and .parquet"),
        ((source, source, "--url", server), 2, "another file"),
        ((source, taken, "--url", server), 2, "--overwrite"),
        ((source, out, "--url", server, "--instruction", "vidor"), 2, "instruction"),
    ):
        ended = bulk(*arguments)
        assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
        assert sentence in ended.stderr


def test_what_fails_for_a_time_is_sent_again_and_another_model_ends_the_run(tmp_path: Path) -> None:
    """A full service, a broken connection, a line that could not be answered."""
    source, out = write_rows(tmp_path / "in.jsonl", some_rows(1)), tmp_path / "out.jsonl"

    def scored(digest: str) -> bytes:
        results = [{"index": index, "relevance_score": 0.5, "logit": 0.0} for index in (1, 0)]
        meta = {"model_digest": digest}
        return answer(
            "200 OK", json.dumps({"line": 1, "results": results, "errors": [], "meta": meta})
        )

    begin = [answer("200 OK", json.dumps({"limits": {"max_documents": 1_000}})), scored("one")]
    full = answer("503 Service Unavailable", '{"message": "Full.", "code": "overloaded"}')
    late = answer("200 OK", '{"line": 1, "code": "overloaded", "message": "Full."}')
    with scripted([*begin, full, b"", late, answer("200 OK"), scored("one")]) as service:
        ended = bulk(source, out, "--url", service.url)
    assert ended.returncode == 0, ended.stderr
    assert read_rows(out)[0]["scores"] == [0.5, 0.5]
    assert service.lines[2:] == ["POST /v1/rerank/stream HTTP/1.1"] * 5

    with scripted([*begin, scored("two")]) as service:
        ended = bulk(source, tmp_path / "other.jsonl", "--url", service.url)
    assert ended.returncode == 1
    assert "model has changed from one to two" in ended.stderr


@pytest.mark.slow
def test_a_model_in_this_process_and_ray_give_the_scores_of_the_service(
    tmp_path: Path, server: str
) -> None:
    source = write_rows(tmp_path / "in.jsonl", some_rows(24))
    ways = {
        "service": ("--url", server),
        "model": ("--model", "gmr-tiny"),
        "ray": ("--ray", 2, "--url", server, "--rows-per-part", 5),
        "ray model": ("--ray", 1, "--model", "gmr-tiny"),
    }
    found = {}
    for name, options in ways.items():
        out = tmp_path / f"{name}.jsonl"
        ended = bulk(source, out, *options, **CALM)
        assert ended.returncode == 0, ended.stderr
        found[name] = read_rows(out)
    for rows in found.values():
        for row, expected in zip(rows, found["service"], strict=True):
            assert row["key"] == expected["key"]
            assert row["scores"] == pytest.approx(expected["scores"], abs=1e-4)
