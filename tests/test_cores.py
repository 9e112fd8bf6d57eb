"""How many cores a process believes it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cores import cores


@pytest.mark.parametrize(
    ("said", "count"),
    [("50000 100000", 1), ("100000 100000", 1), ("110000 100000", 2), ("9900000 100000", 3)],
)
def test_a_container_has_what_its_quota_says_and_no_more_than_there_are(
    said: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 4, 7})
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{said}\n")
    assert cores(quota) == count


@pytest.mark.parametrize("said", [None, "max 100000\n", "", "1 0 1", "a b"])
def test_without_a_quota_it_has_the_cores_that_it_is_bound_to(
    said: str | None, tmp_path: Path
) -> None:
    quota = tmp_path / "cpu.max"
    if said is not None:
        quota.write_text(said)
    assert cores(quota) == len(os.sched_getaffinity(0))
