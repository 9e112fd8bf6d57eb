"""`gmr bench` as an operator runs it: processes, a table, a file of numbers, a chart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.bench.reliability.soak import growth
from service.bench.results import AGREEMENT

ROOT = Path(__file__).parents[3]
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
EAGER = {"RERANK_ENGINE_ENFORCE_EAGER": "true"}


def run(options: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`gmr bench` with options as they are typed."""
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "bench", *options.split(), *more],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
    )


def measured(options: str, output: Path, **environment: str) -> tuple[str, dict[str, Any]]:
    """The output and the report of a run that succeeds."""
    done = run(options, "--output", str(output), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(output.read_text(encoding="utf-8"))


def check_rows(rows: list[dict[str, Any]], contenders: list[str]) -> None:
    assert [row["contender"] for row in rows] == contenders
    first = rows[0]
    for row in rows:
        assert row["void"] is False
        assert row["disagreement"] <= AGREEMENT["float32"]
        assert row["ratio"] == pytest.approx(row["seconds"][0] / first["seconds"][0])
        assert row["unique_tokens"] == first["unique_tokens"] > 0
        for name in ("pairs_per_second", "p50_ms", "memory_mib", "share_of_matmul"):
            assert row[name] > 0
        assert sum(row["cpu_seconds_per_100_pairs"].values()) > 0


@pytest.mark.slow
def test_a_run_prints_a_table_and_writes_numbers_and_a_chart(tmp_path: Path) -> None:
    """An engine argument of the environment does not concern contenders without vLLM."""
    output = tmp_path / "bench.json"
    printed, report = measured(
        "--contenders torch,naive,naive-last --workloads T,R --callers 1,2 --samples 1"
        " --documents 2",
        output,
        **EAGER,
    )
    assert "2 documents a request, 2 at once" in printed
    assert "300-token query side x texts of 130 tokens" in printed
    assert "void" not in printed
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    assert (report["model"], report["dtype"]) == ("gmr-tiny", "float32")
    assert (report["documents"], report["samples"]) == (2, 1)
    assert set(report["versions"]) == {"gmr-rerank", "torch", "transformers"}
    assert report["matmul_gflops"]["float32"] > 0
    shapes = [(row["workload"], row["callers"]) for row in report["rows"]]
    assert shapes == [("T", 1)] * 3 + [("R", 1)] * 3 + [("T", 2), ("R", 2)]
    for start in (0, 3):
        check_rows(report["rows"][start : start + 3], ["torch", "naive", "naive-last"])


@pytest.mark.slow
def test_vllms_own_server_agrees_with_ours_on_texts_and_pictures(tmp_path: Path) -> None:
    _, report = measured(
        "--contenders ours,vllm-tuned --workloads C,R --callers 1 --samples 1 --documents 4"
        f" --python-vllm {VLLM}",
        tmp_path / "bench.json",
        **EAGER,
    )
    for letter in ("C", "R"):
        rows = [row for row in report["rows"] if row["workload"] == letter]
        check_rows(rows, ["ours", "vllm-tuned"])
        ours, theirs = rows
        assert {"gateway", "worker", "engine"} <= set(ours["cpu_seconds_per_100_pairs"])
        assert {"front end", "engine"} <= set(theirs["cpu_seconds_per_100_pairs"])
        assert ours["prompt_tokens"] == theirs["prompt_tokens"]
        for row in rows:
            assert 0 < row["computed_tokens"] < row["prompt_tokens"]
    assert "vllm" in " ".join(report["engine_versions"])


@pytest.mark.slow
def test_the_gateways_own_cost_is_measured(tmp_path: Path) -> None:
    printed, report = measured(
        "--overhead --engine torch --samples 1 --documents 2", tmp_path / "overhead.json"
    )
    assert f"The gateway adds {report['added_p50_ms']:.1f} ms" in printed
    difference = report["gateway_p50_ms"] - report["worker_p50_ms"]
    assert report["added_p50_ms"] == pytest.approx(difference)
    assert (len(report["gateway_ms"]), len(report["worker_ms"])) == (4, 4)
    assert report["decoding_ms_a_picture"] > 0
    for service in ("two processes", "one process"):
        found = report["cached"][service]
        assert [found["cpu_ms_a_request"]] == found["rounds"]
        assert found["cpu_ms_a_request"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        ("--workloads T,X", 2, "There is no workload 'X': choose from T, Q, L, C, R, D, DI.\n"),
        (
            "--worst-requests --shapes webp,mp4",
            2,
            (
                "There is no shape 'mp4': choose from nested, keys, english, chinese, rare,"
                " instruction, webp, png, profiles, scans, exif, idle, unread.\n"
            ),
        ),
        ("--output nowhere/bench.json", 1, "nowhere/bench.json: No such file or directory.\n"),
        (
            "--model gmr-huge",
            1,
            "There is no model 'gmr-huge': it is no folder, no hub id, and none of gmr-tiny,"
            " gmr-tiny-d.\n",
        ),
    ],
)
def test_a_run_that_cannot_be_made_is_one_sentence(options: str, code: int, sentence: str) -> None:
    done = run(options)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", sentence)


@pytest.mark.slow
def test_the_most_expensive_requests_are_held_to_their_bounds(tmp_path: Path) -> None:
    """Two kinds of pictures, a few of each. All shapes at full size need an idle machine."""
    output = tmp_path / "worst.json"
    options = "--worst-requests --engine torch --documents 6 --shapes profiles,webp"
    done = run(options, "--output", str(output))
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert [row["shape"] for row in rows] == ["profiles", "webp"]
    assert done.returncode == int(any(row["broken"] for row in rows))
    for row in rows:
        assert set(row["broken"]) <= {"others_p95_s"}, row  # the machine may be busy
        assert row["status"] == 200
        assert row["others"] >= 5
        assert row["shape"] in done.stdout

    profiles, webp = rows
    assert profiles["gateway_cpu_s"] < 3 < profiles["body_mib"] * 30, (
        "Pillow would unpack each of them"
    )
    assert 0 < webp["decoders_cpu_s"] < 12


@pytest.mark.slow
def test_a_contender_that_does_not_start_shows_its_log() -> None:
    done = run("--contenders ours", "--python-vllm", sys.executable)
    assert done.returncode == 1
    assert done.stderr.startswith("worker ended with ")
    assert (
        "RERANK_ENGINE is vllm, but vLLM is not installed: pip install 'gmr-rerank[vllm]'."
        in done.stderr
    )


def test_growth_is_by_role_from_the_warm_up_to_the_end() -> None:
    memory = [{"gateway": 5.0}, {"gateway": 9.0}, {"gateway": 7.0, "decoders": 3.0}]
    assert growth(memory) == {"decoders": 3.0, "gateway": 2.0}
