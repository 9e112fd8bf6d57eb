"""The rate of matrix products in the layer shapes of some models, by rows.

A program of its own: DEVICE DTYPE PYTHON MODELS ROWS --output FILE, with commas in lists. Depends
on `service.bench.matmul`, which runs in the engine's environment. Invariant: the file is written
after each rate.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from model_store.sizing.network import network_cost
from service.bench.checkpoints import make_checkpoint
from service.bench.comparison.roofline import layer_matrices
from service.bench.machine import describe, matmul_rates
from service.bench.plan import Plan, make_plan
from service.bench.results import write_report


def main() -> None:
    """Measure, and write the rates."""
    parser = argparse.ArgumentParser()
    for name in ("device", "dtype", "python", "models", "rows"):
        parser.add_argument(name)
    parser.add_argument("--output", type=Path, required=True)
    typed = parser.parse_args()

    report: dict[str, Any] = {"tflops": {}}
    for model in dict.fromkeys(typed.models.split(",")):
        plan = _plan(model, typed)
        if len(report) == 1:
            report = describe(plan) | report
        with tempfile.TemporaryDirectory(prefix="gmr-bench-") as folder:
            network = network_cost(str(make_checkpoint(plan, Path(folder)).folder))

        rates: dict[str, float] = {}
        report["tflops"][model] = rates
        for rows in map(int, typed.rows.split(",")):
            found = matmul_rates(plan, [plan.dtype], layer_matrices(network), rows)
            rates[str(rows)] = found[plan.dtype] / 1e12
            write_report(report, typed.output)


def _plan(model: str, typed: argparse.Namespace) -> Plan:
    return make_plan(
        model=model,
        contenders="ours",
        workloads="T",
        callers="1",
        samples=1,
        documents=1,
        dtype=typed.dtype,
        device=typed.device,
        engine="vllm",
        quantization=None,
        python_vllm=Path(typed.python),
        output=None,
    )


if __name__ == "__main__":
    main()
