"""The keys file: its valid content, the sentences of refusals, and atomic changes."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli.main import app
from service.gateway.admission.keys import (
    MAX_FILE_BYTES,
    KeyEntry,
    KeysUnusable,
    change_keys,
    digest,
    new_key,
    plain_keys,
    read_keys,
)

HASH = "ab" * 32


def entry(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"sha256": f"{number:064x}"} | fields


def written(folder: Path, content: object) -> Path:
    path = folder / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def gmr(*arguments: object) -> Result:
    return CliRunner().invoke(
        app, ["keys", *map(str, arguments)], env={"RERANK_API_KEYS_FILE": None}
    )


def test_a_file_may_say_all_that_the_description_says(tmp_path: Path) -> None:
    full = entry(
        sha256=HASH.upper(),
        name="n",
        tenant="t",
        pairs_per_second=0.5,
        max_in_flight=3,
        models=["gmr-tiny", "org/name@1"],
    )
    (read,) = read_keys(written(tmp_path, {"keys": [full]})).keys
    assert read.model_dump() == full | {"sha256": HASH, "models": ("gmr-tiny", "org/name@1")}
    assert read_keys(written(tmp_path, {"keys": []})).keys == ()
    assert (
        len(
            read_keys(written(tmp_path, {"keys": [entry(number) for number in range(10_000)]})).keys
        )
        == 10_000
    )


SECRET = "sk-somebody-put-a-plain-key-here"
WRONG = {
    "no JSON": "{",
    "another shape": [],
    "another field": {"keys": [entry(key=SECRET)]},
    "no hash": {"keys": [{"name": "n"}]},
    "a plain key": {"keys": [{"sha256": SECRET}]},
    "a name with a slash": {"keys": [entry(name="../" + SECRET)]},
    "a long name": {"keys": [entry(tenant="a" * 65)]},
    "no rate": {"keys": [entry(pairs_per_second=0)]},
    "an endless rate": '{"keys": [{"sha256": "' + HASH + '", "pairs_per_second": Infinity}]}',
    "a negative number": {"keys": [entry(max_in_flight=-1)]},
    "no models": {"keys": [entry(models=[])]},
    "too many keys": {"keys": [entry(number) for number in range(10_001)]},
    "a hash twice": {"keys": [entry(name="a"), entry(name="b")]},
    "a name twice": {"keys": [entry(1, name="a"), entry(2, name="a")]},
    "a tenant's two rates": {
        "keys": [entry(1, tenant="t", pairs_per_second=1), entry(2, tenant="t", pairs_per_second=2)]
    },
    "too large": " " * (MAX_FILE_BYTES + 1),
    "no text": "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused_in_one_sentence_that_repeats_nothing_of_it(
    tmp_path: Path, what: str
) -> None:
    with pytest.raises(KeysUnusable) as refusal:
        read_keys(written(tmp_path, WRONG[what]))
    said = str(refusal.value)
    assert said.startswith("The keys file ")
    assert said.endswith(".")
    assert "\n" not in said
    assert SECRET not in said


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["absent", "a folder"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "keys.json")
    with pytest.raises(KeysUnusable, match=r"keys\.json"):
        read_keys(tmp_path / "keys.json")


def test_scopes_are_apart() -> None:
    scopes = [
        KeyEntry(**entry(1, tenant="a")).scope(),
        KeyEntry(**entry(2, name="a")).scope(),
        KeyEntry(**entry(3)).scope(),
        KeyEntry(**entry(4)).scope(),
    ]
    assert len(set(scopes)) == 4
    assert KeyEntry(**entry(5, tenant="a", name="b")).scope() == scopes[0]


def test_plain_keys_are_hashed_and_weak_ones_refused() -> None:
    first, second = new_key(), new_key()
    assert {each.sha256 for each in plain_keys(f" {first},{second},,{first} ")} == {
        digest(key.encode()).hex() for key in (first, second)
    }
    for given in ("", " , ", "short", f"{first},short", "ä" * 32, "a b" * 10, "a" * 257):
        with pytest.raises(KeysUnusable) as refusal:
            plain_keys(given)
        assert first not in str(refusal.value)


def test_a_made_key_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = gmr(
        "create",
        "--file",
        file,
        "--tenant",
        "t",
        "--name",
        "n",
        "--pairs-per-second",
        5,
        "--models",
        "a,b",
    )
    key = made.stdout.strip()
    assert re.fullmatch(r"gmr_[A-Za-z0-9_-]{43}", key)
    (kept,) = read_keys(file).keys
    assert kept == KeyEntry(
        sha256=digest(key.encode()).hex(),
        name="n",
        tenant="t",
        pairs_per_second=5,
        models=("a", "b"),
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text()
    shown = gmr("list", "--file", file)

    assert "tenant=t" in shown.stdout
    assert key not in shown.output
    assert kept.sha256 not in shown.output


def test_keys_are_revoked_by_name_or_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for name in ("a", "b"):
        gmr("create", "--file", file, "--name", name)
    gmr("create", "--file", file)
    assert gmr("revoke", "a", "--file", file).exit_code == 0
    unnamed = next(each for each in read_keys(file).keys if not each.name)
    assert gmr("revoke", unnamed.sha256[:12], "--file", file).exit_code == 0
    assert [each.name for each in read_keys(file).keys] == ["b"]
    unknown = gmr("revoke", "a", "--file", file)

    assert (unknown.exit_code, unknown.stderr) == (1, "There is no such key in the file.\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--name a/b", 2),
        ("--pairs-per-second 0", 2),
        ("--max-in-flight 0", 2),
        ("--name taken", 1),
        ("--tenant t --max-in-flight 9", 1),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    tmp_path: Path, arguments: str, code: int
) -> None:
    file = tmp_path / "keys.json"
    gmr("create", "--file", file, "--name", "taken", "--tenant", "t", "--max-in-flight", 3)
    before = file.read_bytes()
    refused = gmr("create", "--file", file, *arguments.split())

    assert refused.exit_code == code
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["keys.json"]


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    file = written(tmp_path, "{")
    assert gmr("create", "--file", file).exit_code == 1
    assert file.read_text() == "{"


def test_a_file_that_was_there_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real = written(tmp_path, {"keys": []})
    real.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(real)
    gmr("create", "--file", link)

    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert len(read_keys(real).keys) == 1


def test_many_at_once_lose_nothing_and_a_reader_never_sees_half(tmp_path: Path) -> None:
    file = written(tmp_path, {"keys": []})
    done = threading.Event()
    seen: list[int] = []

    def joined(one: KeyEntry, known: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        return (*known, one)

    def add(number: int) -> None:
        for each in (KeyEntry(**entry(number * 5 + turn)) for turn in range(5)):
            change_keys(file, partial(joined, each))

    def look() -> None:
        while not done.is_set():
            seen.append(len(read_keys(file).keys))

    looking = threading.Thread(target=look)
    adding = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in (looking, *adding):
        thread.start()
    for thread in adding:
        thread.join()
    done.set()
    looking.join()

    assert len(read_keys(file).keys) == 40
    assert seen == sorted(seen)
