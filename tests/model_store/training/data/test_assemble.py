"""A conversion in parts: continued where it was interrupted, with one bound on bad rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model_store.errors import DataError
from model_store.training.data.converters.assemble import convert
from model_store.training.data.converters.outcomes import BadRow, Outcomes, Skipped

DESCRIBED = {"layout": "numbers"}


def row(number: int, outcomes: Outcomes) -> bytes:
    """Every third number is skipped."""
    if number % 3 == 2:
        raise Skipped("every third")
    return f"{number}\n".encode()


def numbers(target: Path, count: int = 10, **options: object) -> Outcomes:
    return convert(target, DESCRIBED, range(count), row, rows_a_part=4, **options)  # type: ignore[arg-type]


KILLED = """
import os, signal, sys
from pathlib import Path
from model_store.training.data.converters.assemble import convert
from tests.model_store.training.data.test_assemble import DESCRIBED, row
def row_or_death(number, outcomes):
    if number == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return row(number, outcomes)
convert(Path(sys.argv[1]), DESCRIBED, range(10), row_or_death, rows_a_part=4)
"""


def test_a_conversion_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    target, uninterrupted = tmp_path / "rows.jsonl", tmp_path / "uninterrupted.jsonl"
    numbers(uninterrupted)
    killed = subprocess.run([sys.executable, "-c", KILLED, target], check=False, env=os.environ)

    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()

    parts = tmp_path / "rows.jsonl.parts"

    assert sorted(path.name for path in parts.iterdir() if not path.name.startswith(".")) == [
        "000000.json",
        "000000.jsonl",
        "run.json",
    ]

    made: list[int] = []

    def counted(number: int, outcomes: Outcomes) -> bytes:
        made.append(number)
        return row(number, outcomes)

    convert(target, DESCRIBED, range(10), counted, rows_a_part=4)

    assert made == [4, 5, 6, 7, 8, 9]  # the first part was done
    assert target.read_bytes() == uninterrupted.read_bytes()

    reports = [path.with_name(f"{path.name}.report.json") for path in (target, uninterrupted)]

    assert reports[0].read_bytes() == reports[1].read_bytes()
    assert not parts.exists()


def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    first = numbers(target)
    target.write_bytes(b"changed\n")

    assert numbers(target) == first
    assert target.read_bytes() == b"changed\n"


def test_the_bound_is_the_same_over_parts_and_after_an_interruption(tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"

    def half_bad(number: int, outcomes: Outcomes) -> bytes:
        if number % 2:
            raise BadRow(f"source:{number}: it is odd.")
        return row(number * 3, outcomes)

    def half(max_bad: int) -> Outcomes:
        return convert(target, DESCRIBED, range(12), half_bad, max_bad=max_bad, rows_a_part=2)

    for allowed in (3, 5):  # the second goes on where the first ended
        with pytest.raises(
            DataError, match=rf"source:{2 * allowed + 1}: .*--max-bad {allowed} allows"
        ):
            half(allowed)

    assert (half(6).bad, half(6).written) == (6, 6)
    with pytest.raises(DataError, match="--max-bad 5 allows"):
        half(5)


def test_progress_is_shown_as_rows_read(tmp_path: Path) -> None:
    shown: dict[str, list[int]] = {}

    @contextmanager
    def show_progress(unit: str) -> Iterator[Callable[[int], None]]:
        yield shown.setdefault(unit, []).append

    numbers(tmp_path / "rows.jsonl", show_progress=show_progress)
    numbers(tmp_path / "rows.corpus.jsonl", show_progress=show_progress)

    assert shown == {"examples": [4, 4, 2], "documents": [4, 4, 2]}


def test_counts_are_in_the_report(tmp_path: Path) -> None:
    numbers(tmp_path / "rows.jsonl")
    report = json.loads((tmp_path / "rows.jsonl.report.json").read_text(encoding="utf-8"))

    assert (report["made_from"], report["read"], report["written"]) == (DESCRIBED, 10, 7)
    assert report["counts"] == {"skipped: every third": 3}
