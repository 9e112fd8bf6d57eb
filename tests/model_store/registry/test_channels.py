"""A channel is always in a whole state: of promotions at once one comes first, and a reader sees it
or the one before."""

from __future__ import annotations

import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from model_store.registry.channels import (
    Overtaken,
    Promotion,
    channels,
    current,
    history,
    is_channel,
    promote,
    rollback,
)
from model_store.registry.storage import LocalPlace, Storage, StoreFailed, place_of

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
RECORDS = "small/channels/production"


def put(place: Storage, *digests: str) -> None:
    for digest in digests:
        promote(place, "small", "production", digest, after=current(place, "small", "production"))


def now(place: Storage) -> str:
    record = current(place, "small", "production")
    assert record
    return record.digest


def insist(root: str, digit: str, times: int) -> None:
    """Promote `times` times, looking again whenever somebody else was first; read a whole state at
    every turn."""
    place = place_of(root)
    for number in range(times):
        digest = digit * 63 + f"{number:x}"[-1]
        while True:
            before = current(place, "small", "production")
            try:
                made = promote(place, "small", "production", digest, after=before)
            except Overtaken:
                continue
            found = current(place, "small", "production")
            assert found
            assert found.number >= made.number
            break


def assert_unbroken(place: Storage, expected: int) -> list[Promotion]:
    records = history(place, "small", "production", limit=1000)
    assert [record.number for record in records] == list(range(expected, 0, -1))
    assert all(record.previous == record.number - 1 for record in records)
    return records


def test_nothing_is_promoted_at_first(place: Storage) -> None:
    assert current(place, "small", "production") is None
    assert channels(place, "small") == {}
    with pytest.raises(StoreFailed, match="nothing to go back to"):
        rollback(place, "small", "production")


def test_the_last_promotion_is_in_force(place: Storage) -> None:
    put(place, A, B)
    assert now(place) == B
    assert [record.digest for record in history(place, "small", "production")] == [B, A]
    assert {channel: record.digest for channel, record in channels(place, "small").items()} == {
        "production": B
    }


def test_channels_do_not_touch_each_other(place: Storage) -> None:
    put(place, A)
    promote(place, "small", "staging", B, after=None)
    assert {channel: record.digest for channel, record in channels(place, "small").items()} == {
        "production": A,
        "staging": B,
    }


def test_a_rollback_goes_back_and_two_go_back_by_two(place: Storage) -> None:
    put(place, A, B, C)
    rollback(place, "small", "production")
    assert now(place) == B
    rollback(place, "small", "production")
    assert now(place) == A
    with pytest.raises(StoreFailed, match="nothing to go back to"):
        rollback(place, "small", "production")
    put(place, C)
    rollback(place, "small", "production")
    assert now(place) == A
    assert [record.action for record in reversed(history(place, "small", "production"))] == [
        "promote", "promote", "promote", "rollback", "rollback", "promote", "rollback",
    ]  # fmt: skip


def test_a_rollback_keeps_the_evaluation_of_what_it_goes_back_to(place: Storage) -> None:
    promote(place, "small", "production", A, after=None, evaluation="1" * 64)
    put(place, B)
    assert rollback(place, "small", "production").evaluation == "1" * 64


def test_who_looked_too_early_is_told(place: Storage) -> None:
    put(place, A)
    before = current(place, "small", "production")
    put(place, B)
    with pytest.raises(Overtaken, match="by somebody else"):
        promote(place, "small", "production", C, after=before)
    assert now(place) == B


def test_threads_that_promote_at_once_leave_one_history(root: str) -> None:
    threads = [threading.Thread(target=insist, args=(root, digit, 10)) for digit in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = assert_unbroken(place_of(root), 40)
    assert len({record.digest for record in records}) == 40


def test_processes_that_promote_at_once_leave_one_history(tmp_path: Path) -> None:
    root = str(tmp_path / "registry")
    fresh = multiprocessing.get_context("spawn")
    processes = [fresh.Process(target=insist, args=(root, digit, 15)) for digit in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    records = assert_unbroken(LocalPlace(Path(root)), 30)
    assert sum(record.digest[0] == "a" for record in records) == 15
    assert {path.name for path in (tmp_path / "registry" / RECORDS).iterdir()} == {
        f"{number:06}.json" for number in range(1, 31)
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", json.dumps({"number": 2}).encode(), b" " * 70_000],
)
def test_a_record_that_cannot_be_read_is_said_and_never_passed_over(
    place: Storage, content: bytes
) -> None:
    put(place, A)
    place.create(f"{RECORDS}/000002.json", content)
    with pytest.raises(StoreFailed, match=r"000002|larger"):
        current(place, "small", "production")


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"number": 3}, {"previous": 2}, {"digest": "../../up"}, {"extra": 1}],
)
def test_a_record_that_says_nonsense_is_refused(place: Storage, change: dict[str, object]) -> None:
    put(place, A)
    record = (
        json.loads(place.read(f"{RECORDS}/000001.json", 10_000) or b"")
        | {"number": 2, "previous": 1}
        | change
    )
    place.create(f"{RECORDS}/000002.json", json.dumps(record).encode())
    with pytest.raises(StoreFailed, match="the record 000002 cannot be read"):
        current(place, "small", "production")


def test_files_that_are_no_records_are_not_looked_at(place: Storage) -> None:
    put(place, A)
    for name in ("notes.txt", "000009.json.tmp", "9.json", "0000009.json"):
        place.create(f"{RECORDS}/{name}", b"?")
    assert now(place) == A


@pytest.mark.parametrize(
    "channel", ["", "..", "a/b", "Production", "x" * 33, "deadbeef", "1st", "a\0"]
)
def test_a_channel_that_leads_elsewhere_or_looks_like_a_digest_is_refused(
    place: Storage, channel: str
) -> None:
    assert not is_channel(channel)
    with pytest.raises(StoreFailed, match="is no channel"):
        promote(place, "small", channel, A, after=None)


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_a_name_that_leads_elsewhere_is_refused(place: Storage, name: str) -> None:
    with pytest.raises(StoreFailed, match="no model's name"):
        promote(place, name, "production", A, after=None)
    with pytest.raises(StoreFailed, match="no model's name"):
        channels(place, name)
