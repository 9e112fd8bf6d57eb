"""Plans for small runs on torch."""

from __future__ import annotations

from pathlib import Path

from service.bench.plan import Plan, make_plan


def torch_plan(
    output: Path, *, samples: int, documents: int, workloads: str = "T", callers: str = "1"
) -> Plan:
    return make_plan(
        model="gmr-tiny",
        contenders="ours",
        workloads=workloads,
        callers=callers,
        samples=samples,
        documents=documents,
        dtype=None,
        device="cpu",
        engine="torch",
        quantization=None,
        python_vllm=None,
        output=output,
    )
