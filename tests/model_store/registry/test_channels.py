"""A channel is always in a whole state: of promotions at once one comes first, and a reader sees it
or the one before."""

from __future__ import annotations

import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from model_store.registry.channels import (
    Promotion,
    PromotionConflict,
    channels,
    current,
    history,
    is_channel,
    promote,
    rollback,
)
from model_store.registry.storage import LocalStorage, RegistryFailed, Storage, open_storage

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
RECORDS = "small/channels/production"


def put(storage: Storage, *digests: str) -> None:
    for digest in digests:
        promote(
            storage, "small", "production", digest, after=current(storage, "small", "production")
        )


def now(storage: Storage) -> str:
    record = current(storage, "small", "production")
    assert record
    return record.digest


def insist(root: str, digit: str, times: int) -> None:
    """Promote `times` times, again after each conflict; every read finds a complete state."""
    storage = open_storage(root)
    for number in range(times):
        digest = digit * 63 + f"{number:x}"[-1]
        while True:
            before = current(storage, "small", "production")
            try:
                made = promote(storage, "small", "production", digest, after=before)
            except PromotionConflict:
                continue
            found = current(storage, "small", "production")
            assert found
            assert found.number >= made.number
            break


def assert_unbroken(storage: Storage, expected: int) -> list[Promotion]:
    records = history(storage, "small", "production", limit=1000)
    assert [record.number for record in records] == list(range(expected, 0, -1))
    assert all(record.previous == record.number - 1 for record in records)
    return records


def test_nothing_is_promoted_at_first(storage: Storage) -> None:
    assert current(storage, "small", "production") is None
    assert channels(storage, "small") == {}
    with pytest.raises(RegistryFailed, match="nothing to go back to"):
        rollback(storage, "small", "production")


def test_the_last_promotion_is_in_force(storage: Storage) -> None:
    put(storage, A, B)
    assert now(storage) == B
    assert [record.digest for record in history(storage, "small", "production")] == [B, A]
    assert {channel: record.digest for channel, record in channels(storage, "small").items()} == {
        "production": B
    }


def test_channels_do_not_touch_each_other(storage: Storage) -> None:
    put(storage, A)
    promote(storage, "small", "staging", B, after=None)
    assert {channel: record.digest for channel, record in channels(storage, "small").items()} == {
        "production": A,
        "staging": B,
    }


def test_a_rollback_goes_back_and_two_go_back_by_two(storage: Storage) -> None:
    put(storage, A, B, C)
    rollback(storage, "small", "production")

    assert now(storage) == B

    rollback(storage, "small", "production")

    assert now(storage) == A
    with pytest.raises(RegistryFailed, match="nothing to go back to"):
        rollback(storage, "small", "production")

    put(storage, C)
    rollback(storage, "small", "production")

    assert now(storage) == A
    assert [record.action for record in reversed(history(storage, "small", "production"))] == [
        "promote", "promote", "promote", "rollback", "rollback", "promote", "rollback",
    ]  # fmt: skip


def test_a_rollback_keeps_the_evaluation_of_what_it_goes_back_to(storage: Storage) -> None:
    promote(storage, "small", "production", A, after=None, evaluation="1" * 64)
    put(storage, B)
    assert rollback(storage, "small", "production").evaluation == "1" * 64


def test_who_looked_too_early_is_told(storage: Storage) -> None:
    put(storage, A)
    before = current(storage, "small", "production")
    put(storage, B)

    with pytest.raises(PromotionConflict, match="by somebody else"):
        promote(storage, "small", "production", C, after=before)
    assert now(storage) == B


def test_threads_that_promote_at_once_leave_one_history(root: str) -> None:
    threads = [threading.Thread(target=insist, args=(root, digit, 10)) for digit in "abcd"]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    records = assert_unbroken(open_storage(root), 40)

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

    records = assert_unbroken(LocalStorage(Path(root)), 30)

    assert sum(record.digest[0] == "a" for record in records) == 15
    assert {path.name for path in (tmp_path / "registry" / RECORDS).iterdir()} == {
        f"{number:06}.json" for number in range(1, 31)
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", json.dumps({"number": 2}).encode(), b" " * 70_000],
)
def test_a_record_that_cannot_be_read_is_said_and_never_passed_over(
    storage: Storage, content: bytes
) -> None:
    put(storage, A)
    storage.create(f"{RECORDS}/000002.json", content)
    with pytest.raises(RegistryFailed, match=r"000002|larger"):
        current(storage, "small", "production")


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 2}, {"number": 3}, {"previous": 2}, {"digest": "../../up"}, {"extra": 1}],
)
def test_a_record_that_says_nonsense_is_refused(
    storage: Storage, change: dict[str, object]
) -> None:
    put(storage, A)
    record = (
        json.loads(storage.read(f"{RECORDS}/000001.json", 10_000) or b"")
        | {"number": 2, "previous": 1}
        | change
    )
    storage.create(f"{RECORDS}/000002.json", json.dumps(record).encode())

    with pytest.raises(RegistryFailed, match="the record 000002 cannot be read"):
        current(storage, "small", "production")


def test_files_that_are_no_records_are_not_looked_at(storage: Storage) -> None:
    put(storage, A)
    for name in ("notes.txt", "000009.json.tmp", "9.json", "0000009.json"):
        storage.create(f"{RECORDS}/{name}", b"?")
    assert now(storage) == A


@pytest.mark.parametrize(
    "channel", ["", "..", "a/b", "Production", "x" * 33, "deadbeef", "1st", "a\0"]
)
def test_a_channel_that_leads_elsewhere_or_looks_like_a_digest_is_refused(
    storage: Storage, channel: str
) -> None:
    assert not is_channel(channel)
    with pytest.raises(RegistryFailed, match="is no channel"):
        promote(storage, "small", channel, A, after=None)


@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_a_name_that_leads_elsewhere_is_refused(storage: Storage, name: str) -> None:
    with pytest.raises(RegistryFailed, match="no model's name"):
        promote(storage, name, "production", A, after=None)
    with pytest.raises(RegistryFailed, match="no model's name"):
        channels(storage, name)
