"""The folder of feedback: whole lines whatever fails, and nothing beyond its time or its bound."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.feedback.files import FeedbackFiles
from service.gateway.feedback.journal import Journal
from service.gateway.feedback.room import BufferRoom
from tests.gateway.images.storing import image, noise
from tests.metrics import metric_value

DAY = 86_400.0
NOON = 20_000.5 * DAY


class Clock:
    """A clock that a test sets."""

    now = NOON

    def __call__(self) -> float:
        return self.now


def files_in(folder: Path, *, clock: Clock | None = None, **options: float) -> FeedbackFiles:
    made = {"max_bytes": 2**20, "ttl_seconds": 3 * DAY}
    return FeedbackFiles(folder, clock=clock or Clock(), **(made | options))  # type: ignore[arg-type]


def line(number: int, size: int = 20) -> bytes:
    return json.dumps({"number": number, "filled": "x" * size}).encode() + b"\n"


def numbers(folder: Path) -> list[int]:
    """The numbers of all lines, each of which must be whole."""
    found: list[int] = []
    for path in sorted((folder / "events").glob("*.jsonl*")):
        content = path.read_bytes()
        assert content.endswith(b"\n")
        found += [json.loads(each)["number"] for each in content.splitlines()]
    return sorted(found)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_closed_by_day_and_removed_by_its_first_line(tmp_path: Path) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock=clock)
    files.write([line(1)])
    assert [name.endswith(".jsonl.open") for name in names(tmp_path)] == [True]
    clock.now += DAY
    files.write([line(2)])
    assert [name.endswith(".open") for name in names(tmp_path)] == [False, True]

    clock.now = NOON + 3 * DAY  # the first line is as old as it may be
    files.sweep()
    assert numbers(tmp_path) == [2]
    files.close()
    assert not any(name.endswith(".open") for name in names(tmp_path))
    clock.now += DAY
    files.sweep()
    assert names(tmp_path) == []


def test_processes_share_a_folder_and_its_bound(tmp_path: Path) -> None:
    """Each has a file of its own; the oldest closed ones go, and never one that is appended to."""
    clock = Clock()
    pair = [files_in(tmp_path, clock=clock, max_bytes=2**16) for _ in range(2)]
    for number in range(120):
        clock.now += 1
        pair[number % 2].write([line(number, 2_000)])
        pair[number % 2].sweep()
        total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        assert total <= 2**16
    kept = numbers(tmp_path)
    assert kept[-1] == 119
    assert kept == sorted(kept)
    assert 10 < len(kept) < 40
    assert sum(name.endswith(".open") for name in names(tmp_path)) == 2


def test_other_files_are_left_alone_and_those_of_killed_processes_are_not(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    mine = tmp_path / "events" / "notes.txt"
    mine.write_text("mine")
    left = tmp_path / "events" / f"20200101T000000Z-{'a' * 16}.jsonl.open"
    left.write_bytes(line(1))
    for path in (mine, left):
        os.utime(path, (0, 0))
    files_in(tmp_path).sweep()
    assert names(tmp_path) == ["notes.txt"]


def test_a_disk_that_ends_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk: a part of a write succeeds."""
    files = files_in(tmp_path)
    files.write([line(1, 5_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            files.write([line(2, 2_000), line(3, 5_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files.write([line(4)])
    assert numbers(tmp_path) == [1, 4]


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    files.write([line(1)])
    for path in (tmp_path / "events").iterdir():
        path.unlink()
    (tmp_path / "events").rmdir()
    files.write([line(2)])
    assert numbers(tmp_path) == [2]


def test_a_picture_is_kept_once_and_from_its_last_use(tmp_path: Path) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock=clock, max_bytes=2**20)
    data = image(1)
    for _ in range(2):
        files.keep_picture(hashlib.sha256(data).digest(), data)
    (path,) = (tmp_path / "pictures").glob("*/*")
    assert path.read_bytes() == data
    os.utime(path, (0, NOON - 3 * DAY + 10))
    files.sweep()
    assert path.exists()
    clock.now += 20
    files.sweep()
    assert not path.exists()


@given(st.lists(st.lists(st.integers(0, 2**16), min_size=1, max_size=5), max_size=20))
def test_what_is_written_is_there(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("written")
    files = files_in(folder)
    for batch in batches:
        files.write([line(number) for number in batch])
    files.close()
    assert numbers(folder) == sorted(number for batch in batches for number in batch)


async def test_a_disk_that_fails_is_counted_and_no_caller_learns_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("in the place of the folder")
    before = metric_value("rerank_feedback_lines_total", kind="events", outcome="failed")
    journal = Journal(files_in(folder), BufferRoom(2**16))
    async with journal.running():
        assert journal.append("events", line(1))
        async with asyncio.timeout(60):
            while (
                metric_value("rerank_feedback_lines_total", kind="events", outcome="failed")
                == before
            ):
                await asyncio.sleep(0.02)
        folder.unlink()
        assert journal.append("events", line(2))
    assert numbers(folder) == [2]


async def test_the_buffer_is_bounded_and_written_when_the_gateway_ends(tmp_path: Path) -> None:
    room = BufferRoom(10_000)
    journal = Journal(files_in(tmp_path), room)
    before = metric_value("rerank_feedback_lines_total", kind="events", outcome="dropped")
    taken = [journal.append("events", line(number, 2_000)) for number in range(8)]
    assert taken == [True] * 4 + [False] * 4
    after = metric_value("rerank_feedback_lines_total", kind="events", outcome="dropped")
    assert after == before + 4
    assert not journal.append("events", b"x" * (8 * 2**20 + 1))
    async with journal.running():
        pass
    assert numbers(tmp_path) == [0, 1, 2, 3]
    assert not names(tmp_path)[0].endswith(".open")
    assert room.take(10_000)


def test_what_is_forgotten_goes_before_the_line_that_says_so(tmp_path: Path) -> None:
    """A gateway that started later has the content, one that started earlier the line."""
    clock = Clock()
    early, late = (files_in(tmp_path, clock=clock, window_seconds=DAY) for _ in range(2))
    early.write([line(1)])
    clock.now += 10
    late.write([line(2)])
    clock.now += 10
    early.write([line(3)], forget=True)
    for files in (early, late):
        files.close()
    clock.now = NOON + 4.4 * DAY
    early.sweep()
    assert numbers(tmp_path) == [3]  # lines about the answer may be a day younger than it
    clock.now += DAY
    early.sweep()
    assert numbers(tmp_path) == []


def test_the_oldest_feedback_makes_room_and_what_was_forgotten_stays_so(tmp_path: Path) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock=clock, max_bytes=2**16)
    files.write([line(-1)], forget=True)
    files.close()
    for number in range(60):
        clock.now += 1
        files.write([line(number, 4_000)])
    kept = numbers(tmp_path)
    assert kept[0] == -1
    assert kept[-1] == 59
    assert 1 < kept[1] < 59


def test_what_is_larger_than_the_folder_removes_nothing(tmp_path: Path) -> None:
    files = files_in(tmp_path, max_bytes=2**16)
    files.write([line(1)])
    files.close()
    with pytest.raises(OSError, match="full"):
        files.write([line(2, 2**16)])
    assert numbers(tmp_path) == [1]


def test_many_short_pictures_are_bounded_as_the_disk_counts_them(tmp_path: Path) -> None:
    files = files_in(tmp_path, max_bytes=2**18)
    for number in range(200):
        data = b"\x89PNG" + number.to_bytes(2, "big")
        files.keep_picture(hashlib.sha256(data).digest(), data)
    kept = len(names(tmp_path))
    assert 40 < kept <= 2**18 // 4_096
    files.sweep()
    assert len(names(tmp_path)) == kept


async def test_one_entry_that_cannot_be_kept_costs_no_other(tmp_path: Path) -> None:
    """A file in the place of the folder of a picture stands for one that cannot be written."""
    data = image(1)
    digest = hashlib.sha256(data).digest()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / digest.hex()[:2]).write_text("in the place of a folder")
    journal = Journal(files_in(tmp_path, max_bytes=2**20), BufferRoom(2**22))
    assert journal.keep_picture(digest, data)
    assert not journal.keep_picture(digest, noise(1) * 12)
    for number in range(20):
        assert journal.append("events", line(number, 20_000))
    async with journal.running():
        pass
    assert numbers(tmp_path) == list(range(20))
    assert journal.losses == 1
