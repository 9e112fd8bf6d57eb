"""The steps on a GPU: each within its limit, judged by its rule, and kept when the run is cut."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.bench.gpu import verdicts
from service.bench.gpu.run import run_steps
from service.bench.gpu.steps import Step, chosen_steps, steps_of
from service.bench.gpu.verdicts import Rule, Verdict
from service.bench.plan import BenchRefused, Plan
from tests.bench.test_plan import plan

WRITES = """
import json, pathlib, sys
pathlib.Path(sys.argv[-1]).write_text(json.dumps({"figure": FIGURE}))
"""
HANGS = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
with open(sys.argv[-1] + ".pid", "w") as file:
    file.write(str(child.pid))
time.sleep(600)
"""
LEAVES_A_CHILD = HANGS.replace("time.sleep(600)\n", "time.sleep(3); sys.exit('no memory left')\n")


def judged(report: Mapping[str, Any], _earlier: Mapping[str, Any]) -> Verdict:
    return Verdict(f"figure {report['figure']}", ("third",) if report["figure"] == 9 else ())


def step(name: str, code: str, **options: Any) -> Step:
    rule = Rule("Stop at nine.", judged, needed_by=options.pop("needed_by", ()))
    program = (sys.executable, "-c", code)
    return Step(name, f"the {name} step", program, rule, **options)


def writes(name: str, figure: int, **options: Any) -> Step:
    return step(name, WRITES.replace("FIGURE", str(figure)), **options)


def entries(output: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(output.read_text(encoding="utf-8"))["steps"]
    return {entry["name"]: entry for entry in found}


def test_each_step_is_written_with_its_rule_and_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu.json"
    assert run_steps([writes("first", 1), writes("second", 2)], output) == 0
    first, second = entries(output).values()
    assert (first["status"], first["verdict"], first["rule"]) == (
        "done",
        "figure 1",
        "Stop at nine.",
    )
    assert second["report"] == {"figure": 2}
    assert "the first step, at most 180 s. Stop at nine." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "seconds", "status", "verdict"),
    [
        (HANGS, 4, "over time", "stopped at its limit"),
        (LEAVES_A_CHILD, 60, "failed", "no memory left"),
    ],
)
def test_a_step_that_does_not_end_well_leaves_no_process_and_the_next_one_runs(
    tmp_path: Path, code: str, seconds: float, status: str, verdict: str
) -> None:
    output = tmp_path / "gpu.json"
    assert run_steps([step("bad", code, seconds=seconds), writes("good", 3)], output) == 1
    found = entries(output)
    assert found["bad"]["status"] == status
    assert found["bad"]["verdict"].startswith(verdict)
    assert found["good"]["status"] == "done"

    child = int((tmp_path / "gpu.steps" / "bad.json.pid").read_text(encoding="utf-8"))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_figures_written_before_the_limit_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    slow = WRITES.replace("FIGURE", "5") + "import time; time.sleep(600)"
    run_steps([step("slow", slow, seconds=3)], output)
    assert entries(output)["slow"]["report"] == {"figure": 5}
    assert entries(output)["slow"]["verdict"] == "over time, figures until then: figure 5"


def test_a_run_goes_on_from_its_file(tmp_path: Path) -> None:
    """Steps that are done are not run again, those that failed are, and those of no concern to this
    run stay in the file."""
    output, count = tmp_path / "gpu.json", tmp_path / "count"
    counting = WRITES.replace("FIGURE", "1") + f"open({str(count)!r}, 'a').write('x')\n"
    failing = f"import sys; sys.exit(0 if open({str(count)!r}).read() == 'xx' else 'not yet')"
    steps = [step("first", counting), step("second", failing)]
    assert run_steps([*steps, writes("third", 2)], output) == 1

    assert run_steps(steps, output) == 1
    assert count.read_text(encoding="utf-8") == "x"
    assert [entry["status"] for entry in entries(output).values()] == ["done", "failed", "done"]

    with pytest.raises(BenchRefused, match="has step first with other options"):
        run_steps([writes("first", 7)], output)


def test_a_file_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    output.write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(BenchRefused, match=r"is no file of `gmr bench --gpu`"):
        run_steps([writes("first", 1)], output)
    assert output.read_text(encoding="utf-8") == '{"rows": []}'


def test_a_verdict_and_a_failure_skip_the_steps_that_they_name(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    assert run_steps([writes("first", 9), writes("second", 1), writes("third", 1)], output) == 0
    assert [entry["status"] for entry in entries(output).values()] == ["done", "done", "skipped"]
    assert entries(output)["third"]["verdict"] == "by the rule of first"

    output = tmp_path / "other.json"
    bad = step("first", "raise SystemExit('no engine')", needed_by=("all",))
    assert run_steps([bad, writes("second", 1)], output) == 1
    assert [entry["status"] for entry in entries(output).values()] == ["failed", "skipped"]


def test_no_step_begins_when_the_budget_is_spent(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    assert run_steps([writes("first", 1), writes("second", 1)], output, budget=0) == 1
    assert {entry["status"] for entry in entries(output).values()} == {"not begun"}


def gpu_plan(device: str) -> Plan:
    return plan(model="generated", device=device, contenders="ours", workloads="T")


def test_all_steps_are_within_three_minutes_and_can_be_left_out_by_name() -> None:
    steps = steps_of(gpu_plan("cuda"))
    assert [one.name for one in steps] == [
        "matmul",
        "worker",
        "async",
        "two-workers",
        "vllm",
        "vllm-tuned",
        "fp8",
        "large",
        "documents",
        "pictures",
    ]
    assert max(one.seconds for one in steps) <= 180
    assert [one.name for one in chosen_steps(steps[:3], " async,matmul")] == ["worker"]
    with pytest.raises(BenchRefused, match="There is no step 'packed': choose from matmul, worker"):
        chosen_steps(steps[:2], "packed")
    with pytest.raises(BenchRefused, match="leaves no step"):
        chosen_steps(steps[:1], "matmul")


def test_a_rehearsal_has_the_same_steps_at_a_small_size() -> None:
    on_gpu, on_cpu = steps_of(gpu_plan("cuda")), steps_of(gpu_plan("cpu"))
    assert [one.name for one in on_gpu] == [one.name for one in on_cpu]
    assert any("7b" in one.program for one in on_gpu)
    assert not any({"3b", "7b"} & set(one.program) for one in on_cpu)


def row(workload: str, **figures: Any) -> dict[str, Any]:
    return {"workload": workload, "contender": "ours", "callers": 1} | figures


def test_two_ways_to_hide_the_engine_are_skipped_where_little_is_left_to_hide() -> None:
    def share(of_matmul: float) -> Verdict:
        rows = [row("T", share_of_matmul=of_matmul, pairs_per_second=700.0)]
        return verdicts.WORKER.judge({"rows": rows}, {})

    assert share(0.66) == Verdict("66% of the rate of matrix products on T; T 700 pairs/s")
    assert share(0.78).skips == ("async", "two-workers")


@pytest.mark.parametrize(("speed", "shown"), [(1234.4, "1234"), (0.0312, "0.0312"), (64.5, "64.5")])
def test_figures_keep_their_digits(speed: float, shown: str) -> None:
    report = {"rows": [row("T", share_of_matmul=0.1, pairs_per_second=speed)]}
    assert verdicts.WORKER.judge(report, {}).text.endswith(f"T {shown} pairs/s")


def test_a_gain_over_an_earlier_step_is_said_to_be_of_two_runs() -> None:
    worker = {"rows": [row("T", pairs_per_second=100.0)]}
    faster = {"rows": [row("T", pairs_per_second=120.0)], "mps": False}
    verdict = verdicts.TWO_WORKERS.judge(faster, {"worker": worker})
    assert verdict.text == (
        "without MPS; T 120 pairs/s; T 1.20x of step worker, two runs; worth a paired run"
    )
    assert "not worth it" in verdicts.FP8.judge(worker, {"worker": worker}).text


def test_targets_are_named_with_the_figures() -> None:
    rows = [row("T", contender="vllm", ratio=1.6), row("C", contender="vllm", ratio=1.9)]
    text = verdicts.VLLM.judge({"rows": rows}, {}).text
    assert (
        text
        == "T 1.60x of our time (target 1.5x: reached); C 1.90x of our time (target 2.0x: missed)"
    )

    warm = {"documents": "warm", "pairs_per_second": 3500.0, "ratio": 1.0}
    rows = [
        row("D", prompt="document", **warm),
        row("D", prompt="query", **warm | {"ratio": 3.5, "pairs_per_second": 1000.0}),
    ]
    assert verdicts.DOCUMENTS.judge({"rows": rows}, {}).text == (
        "D warm 3500 pairs/s, 3.50x of query first (target 3x: reached)"
    )
