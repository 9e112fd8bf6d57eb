"""Memory does not grow with the number of requests: the short form of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.comparison.test_run import measured

pytestmark = pytest.mark.slow

REQUESTS = 160
MOST_MIB = 14
"""90 KiB a request: less than one of its pictures, or its texts kept ten times over. What
allocators keep is a few MiB in all."""


def test_hundreds_of_requests_of_all_kinds_leave_nothing_behind(tmp_path: Path) -> None:
    options = f"--soak {REQUESTS} --engine torch --workloads T,Q,C,L,R --callers 2 --documents 2"
    _, report = measured(options, tmp_path / "soak.json")
    growth = report["growth_mib"]
    assert {"gateway", "worker", "decoders"} <= growth.keys()
    assert {part: mib for part, mib in growth.items() if mib > MOST_MIB} == {}

    first, *_, last = report["memory_mib"]
    assert len(report["memory_mib"]) == 10
    for part, grown in growth.items():
        assert grown == pytest.approx(last[part] - first.get(part, 0.0), abs=0.2)
