"""The number of cores that a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cores import cores


@pytest.mark.parametrize(
    ("quota_text", "count"),
    [("50000 100000", 1), ("100000 100000", 1), ("110000 100000", 2), ("9900000 100000", 3)],
)
def test_a_quota_is_rounded_up_and_bounded_by_the_cores_that_there_are(
    quota_text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 4, 7})
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{quota_text}\n")
    assert cores(quota) == count


@pytest.mark.parametrize("quota_text", [None, "max 100000\n", "", "1 0 1", "a b"])
def test_without_a_quota_it_has_the_cores_that_it_is_bound_to(
    quota_text: str | None, tmp_path: Path
) -> None:
    quota = tmp_path / "cpu.max"
    if quota_text is not None:
        quota.write_text(quota_text)
    assert cores(quota) == len(os.sched_getaffinity(0))
