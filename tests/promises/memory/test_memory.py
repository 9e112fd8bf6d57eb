"""Memory does not grow with the number of requests: the short form of `make soak`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.bench.reliability.soak import run_soak
from tests.bench.plans import torch_plan

pytestmark = pytest.mark.slow

REQUESTS = 240
MOST_MIB = 20
"""85 KiB a request: less than one of its pictures, or its texts kept ten times over. What
allocators keep is a few MiB in all."""


def test_hundreds_of_requests_of_all_kinds_leave_nothing_behind(tmp_path: Path) -> None:
    output = tmp_path / "soak.json"
    plan = torch_plan(output, samples=1, documents=2, workloads="T,Q,C,L", callers="2")
    assert run_soak(plan, REQUESTS) == 0
    growth = json.loads(output.read_text(encoding="utf-8"))["growth_mib"]
    assert {"gateway", "worker", "decoders"} <= growth.keys()
    assert {part: mib for part, mib in growth.items() if mib > MOST_MIB} == {}
