"""A folder whose manifest verifies is complete and unchanged, or it is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    Manifest,
    digest_files,
    read_manifest,
    verify,
    write_manifest,
)
from tests.conftest import TINY
from tests.model_store.disk import file_size_limit

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "golden/a.png": b"",
    "é 日.txt": b"unicode",
}
SENTENCE = r"^[^\n]+\.$"


def make_manifest(folder: Path, **changes: Any) -> Manifest:
    described = {
        "name": "small",
        "family": "gmr",
        "template": "code",
        "default_instruction": "find",
        "max_tokens": 3200,
        "pixels": {"min_pixels": 1, "max_pixels": 2},
        "files": digest_files(folder, FILES),
        "lineage": {"seed": 1},
    }
    return Manifest.model_validate(described | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small published checkpoint."""
    folder = tmp_path / "small"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, make_manifest(folder))
    return folder


def read(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest
    return manifest


def change(folder: Path, **changes: Any) -> None:
    """Set fields of the manifest's file; None takes a field away."""
    fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in fields.items() if value is not None}
    (folder / MANIFEST).write_text(json.dumps(kept), encoding="utf-8")


def test_a_manifest_reads_back_as_written(folder: Path) -> None:
    assert read(folder) == make_manifest(folder)


def test_a_published_folder_verifies(folder: Path) -> None:
    verify(folder, read(folder))


def test_the_shipped_checkpoint_verifies() -> None:
    verify(TINY, read(TINY))


def test_digests_are_sha256_and_size(folder: Path) -> None:
    digests = digest_files(folder, FILES)
    assert list(digests) == sorted(FILES)
    for name, content in FILES.items():
        assert digests[name].sha256 == hashlib.sha256(content).hexdigest()
        assert digests[name].bytes == len(content)


def test_a_file_larger_than_a_chunk_is_digested_whole(tmp_path: Path) -> None:
    content = os.urandom(2**22 + 7)
    (tmp_path / "large").write_bytes(content)
    assert digest_files(tmp_path, ["large"])["large"].sha256 == hashlib.sha256(content).hexdigest()


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=200), data=st.data())
def test_any_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    (folder / "weights").write_bytes(content)
    manifest = read(TINY).model_copy(update={"files": digest_files(folder, ["weights"])})
    verify(folder, manifest)

    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "weights").write_bytes(changed)

    with pytest.raises(CheckpointUnusable, match="weights is not the file"):
        verify(folder, manifest)


@pytest.mark.parametrize(
    "content", [FILES["model.safetensors"][:-1], FILES["model.safetensors"] + b"x", b""]
)
def test_a_file_of_another_length_is_found(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointUnusable, match=r"model\.safetensors is not the file") as caught:
        verify(folder, read(folder))
    assert re.match(SENTENCE, str(caught.value))


@pytest.mark.parametrize("name", list(FILES))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointUnusable, match=f"{name} is missing") as caught:
        verify(folder, read(folder))
    assert re.match(SENTENCE, str(caught.value))


def test_a_folder_in_a_files_place_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(CheckpointUnusable, match="missing"):
        verify(folder, read(folder))


def test_a_manifest_with_wrong_digests_is_caught(folder: Path) -> None:
    wrong = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    wrong["config.json"]["sha256"] = "0" * 64
    change(folder, files=wrong)
    with pytest.raises(CheckpointUnusable, match=r"config\.json"):
        verify(folder, read(folder))


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"files": None},
        {"family": None},
        {"schema_version": 2},
        {"max_tokens": 63},
        {"max_tokens": "many"},
        {"name": ""},
        {"pixels": {"min_pixels": 0, "max_pixels": 2}},
        {"pixels": {"min_pixels": 1, "max_pixels": 2, "pages": 3}},
        {"files": {"a": {"sha256": "0" * 63, "bytes": 1}}},
        {"files": {"a": {"sha256": "G" * 64, "bytes": 1}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": -1}}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": 1, "md5": "0"}}},
    ],
    ids=repr,
)
def test_a_field_that_is_wrong_unknown_or_absent_is_refused(
    folder: Path, fields: dict[str, Any]
) -> None:
    change(folder, **fields)
    with pytest.raises(CheckpointUnusable, match="not a valid manifest") as caught:
        read_manifest(folder)
    assert re.match(SENTENCE, str(caught.value))


OUTSIDE = [
    "../x",
    "golden/../../x",
    "/etc/passwd",
    "",
    ".",
    "..",
    "./config.json",
    "golden//a.png",
    "golden/",
    "..\\x",
    "a\0b",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_that_leads_out_of_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "x").write_bytes(b"out")
    (folder / "x").write_bytes(b"out")
    digest = digest_files(folder, ["x"])["x"].model_dump()
    change(folder, files={name: digest})

    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "\\ud800"}']
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(CheckpointUnusable, match="not a valid manifest") as caught:
        read_manifest(folder)
    assert re.match(SENTENCE, str(caught.value))


def test_a_manifest_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    with pytest.raises(CheckpointUnusable, match="cannot be read"):
        read_manifest(folder)


def test_a_folder_without_a_manifest_has_none(folder: Path) -> None:
    (folder / MANIFEST).rename(folder / f"{MANIFEST}.draft")
    assert read_manifest(folder) is None


class TestWriting:
    """A manifest is written atomically: a reader sees the old one or the new one."""

    def test_the_old_file_is_replaced_not_overwritten(self, folder: Path) -> None:
        with (folder / MANIFEST).open(encoding="utf-8") as old:
            write_manifest(folder, make_manifest(folder, name="other"))
            assert json.load(old)["name"] == "small"
        assert read(folder).name == "other"

    def test_nothing_is_left_beside_it(self, folder: Path) -> None:
        write_manifest(folder, make_manifest(folder))
        names = {name.split("/")[0] for name in FILES}
        assert {path.name for path in folder.iterdir()} == names | {MANIFEST}

    def test_a_write_that_fails_leaves_the_old_one(self, folder: Path) -> None:
        before = read(folder)
        with file_size_limit(100), pytest.raises(OSError, match="too large"):
            write_manifest(folder, make_manifest(folder, name="other"))
        assert read(folder) == before

    def test_the_same_manifest_is_the_same_bytes(self, folder: Path) -> None:
        before = (folder / MANIFEST).read_bytes()
        write_manifest(folder, make_manifest(folder))
        assert (folder / MANIFEST).read_bytes() == before

    def test_a_readers_loop_never_sees_a_part(self, folder: Path) -> None:
        done = threading.Event()
        seen: set[str] = set()

        def read_all_the_time() -> None:
            while not done.is_set():
                try:
                    seen.add(read(folder).name)
                except (CheckpointUnusable, AssertionError):
                    seen.add("a part, or nothing")

        reader = threading.Thread(target=read_all_the_time)
        reader.start()

        lineage = {"padding": "x" * 100_000}
        for turn in range(100):
            write_manifest(folder, make_manifest(folder, name=f"turn {turn}", lineage=lineage))
        done.set()
        reader.join()
        assert seen
        assert seen <= {"small", *(f"turn {turn}" for turn in range(100))}


def test_a_read_out_is_written_where_it_is_not_the_default(folder: Path) -> None:
    """Manifests from before the field existed, and their digests, do not change."""
    before = (folder / MANIFEST).read_bytes()
    assert b"read_out" not in before
    assert read(folder).read_out == ""

    write_manifest(folder, read(folder))
    assert (folder / MANIFEST).read_bytes() == before

    write_manifest(folder, make_manifest(folder, read_out="yes"))
    assert json.loads((folder / MANIFEST).read_bytes())["read_out"] == "yes"
    assert read(folder).read_out == "yes"
