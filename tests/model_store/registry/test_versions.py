"""A version is seen when it is whole, and what is pulled is what was published."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import MANIFEST, CheckpointUnusable, manifest_digest
from model_store.registry import versions
from model_store.registry.storage import LocalPlace, Storage, StoreFailed, place_of
from model_store.registry.versions import Version, check, check_sizes, find, names, pull, upload
from tests.model_store.registry.published import FILES, make_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "made")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def overwrite(place: Storage, path: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    place.put(tmp_path / "other", path)


class Failing:
    """A place whose every call after the first few fails: a crash, or a full disk, at each point in
    turn."""

    def __init__(self, place: Storage, calls: int) -> None:
        self._place, self._left = place, calls
        self.name = place.name

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            if name in ("put", "create"):
                if self._left == 0:
                    raise StoreFailed("The disk is full.")
                self._left -= 1
            return getattr(self._place, name)(*args)

        return call


def test_what_is_uploaded_is_listed_and_found(place: Storage, folder: Path) -> None:
    version = upload(place, folder)
    assert version.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert names(place) == ["small"]
    assert versions.versions(place, "small") == [version]
    for prefix in (version.digest, version.digest[:8], f"sha256:{version.digest[:20]}"):
        assert find(place, "small", prefix) == version


def test_uploading_again_changes_nothing(root: str, place: Storage, folder: Path) -> None:
    assert upload(place, folder) == upload(place_of(root), folder)
    assert len(versions.versions(place, "small")) == 1


def test_a_broken_folder_is_not_uploaded(place: Storage, folder: Path) -> None:
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(CheckpointUnusable, match=r"config\.json is not the file"):
        upload(place, folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointUnusable, match="only what `gmr publish` made"):
        upload(place, folder)
    assert place.names("") == []


@pytest.mark.parametrize("calls", range(len(FILES) + 1))
def test_a_half_written_version_is_never_visible(place: Storage, folder: Path, calls: int) -> None:
    with pytest.raises(StoreFailed, match="disk is full"):
        upload(Failing(place, calls), folder)
    assert names(place) == []
    with pytest.raises(StoreFailed, match="has no version"):
        find(place, "small", manifest_digest(folder))
    version = upload(place, folder)
    check(place, version)


def test_a_pulled_folder_is_the_published_one(
    root: str, place: Storage, folder: Path, tmp_path: Path
) -> None:
    told: list[int] = []
    pulled = pull(place, upload(place, folder), tmp_path / "cache", told.append)
    assert contents(pulled) == contents(folder)
    assert sum(told) == sum(map(len, FILES.values()))


def test_what_was_pulled_is_not_loaded_again(place: Storage, folder: Path, tmp_path: Path) -> None:
    version = upload(place, folder)
    first = pull(place, version, tmp_path / "cache")
    told: list[int] = []
    assert pull(place, version, tmp_path / "cache", told.append) == first
    assert told == []


def test_a_cache_that_was_damaged_is_made_whole(
    place: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(place, folder)
    pulled = pull(place, version, tmp_path / "cache")
    (pulled / "model.safetensors").write_bytes(b"damaged")
    assert contents(pull(place, version, tmp_path / "cache")) == contents(folder)


def test_an_interrupted_pull_leaves_nothing_that_resolves_and_goes_on(
    place: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(place, folder)
    cache = tmp_path / "cache"

    def stop(count: int) -> None:
        if count > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(place, version, cache, stop)
    assert not (cache / version.digest).exists()
    told: list[int] = []
    pull(place, version, cache, told.append)
    assert sum(told) == len(FILES["tokenizer.json"])  # all that came before had arrived


def test_many_pull_at_once(place: Storage, folder: Path, tmp_path: Path) -> None:
    version = upload(place, folder)
    pulled: list[Path] = []
    told: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: pulled.append(pull(place, version, tmp_path / "cache", told.append))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pulled == [tmp_path / "cache" / version.digest] * 6
    assert sum(told) == version.bytes


@pytest.mark.parametrize(
    "content",
    [b"", b"short", FILES["model.safetensors"][:-1] + b"x", FILES["model.safetensors"] + b"more"],
)
def test_a_file_that_was_changed_is_refused(
    place: Storage, folder: Path, tmp_path: Path, content: bytes
) -> None:
    version = upload(place, folder)
    overwrite(place, f"small/{version.digest}/model.safetensors", content, tmp_path)
    for use in (check, lambda *given: pull(*given, tmp_path / "cache")):
        with pytest.raises(
            StoreFailed, match=r"model\.safetensors is not the file that was published"
        ):
            use(place, version)
    assert not (tmp_path / "cache" / version.digest).exists()
    if len(content) != len(FILES["model.safetensors"]):
        with pytest.raises(StoreFailed, match="missing or not whole"):
            check_sizes(place, version)


def test_a_file_that_is_gone_is_refused(tmp_path: Path, folder: Path) -> None:
    place = LocalPlace(tmp_path / "registry")
    version = upload(place, folder)
    (tmp_path / "registry" / "small" / version.digest / "config.json").unlink()
    with pytest.raises(StoreFailed, match=r"config\.json"):
        pull(place, version, tmp_path / "cache")


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told + b" ",
        lambda told: told.replace(b'"seed": 0', b'"seed": 1'),
        lambda told: b"{}",
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    place: Storage, folder: Path, tmp_path: Path, change: Any
) -> None:
    version = upload(place, folder)
    overwrite(
        place,
        f"small/{version.digest}/{MANIFEST}",
        change((folder / MANIFEST).read_bytes()),
        tmp_path,
    )
    with pytest.raises(StoreFailed, match="not the one that was published"):
        find(place, "small", version.digest)


def test_a_version_under_another_name_is_refused(
    place: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(place, folder)
    place.put(folder / MANIFEST, f"other/{version.digest}/{MANIFEST}")
    with pytest.raises(StoreFailed, match="is that of 'small'"):
        find(place, "other", version.digest)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc", "a\\b", "a b", "é", "x" * 129, ".hidden", "a\0"]
)
def test_a_name_that_leads_elsewhere_is_refused(place: Storage, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreFailed, match="no model's name"):
        find(place, name, "0" * 64)
    if 0 < len(name) <= 128:
        with pytest.raises(StoreFailed, match="no model's name"):
            upload(place, make_folder(tmp_path / "named", name=name))


@pytest.mark.parametrize(
    "prefix", ["", "0" * 7, "0" * 65, "G" * 8, "../../..", "sha256:", "ABCDEF01"]
)
def test_a_digest_that_is_none_is_refused(place: Storage, prefix: str) -> None:
    with pytest.raises(StoreFailed, match="is no digest"):
        find(place, "small", prefix)


@pytest.mark.parametrize("file", ["../up", "/etc/passwd", "a/../../b"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(
    place: Storage, folder: Path, tmp_path: Path, file: str
) -> None:
    text = (folder / MANIFEST).read_text(encoding="utf-8").replace('"config.json"', f'"{file}"')
    digest = hashlib.sha256(text.encode()).hexdigest()
    place.create(f"small/{digest}/{MANIFEST}", text.encode())
    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        find(place, "small", digest)


@pytest.mark.parametrize(
    "change",
    [('"schema_version": 1', '"schema_version": 2'), ('"bytes": 0', '"bytes": 9999999999999999')],
)
def test_an_unknown_schema_or_an_absurd_size_is_refused(
    place: Storage, folder: Path, change: tuple[str, str]
) -> None:
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    assert change[0] in text
    digest = hashlib.sha256(text.replace(*change).encode()).hexdigest()
    place.create(f"small/{digest}/{MANIFEST}", text.replace(*change).encode())
    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        find(place, "small", digest)


def test_a_manifest_that_is_endless_is_refused(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "MAX_MANIFEST_BYTES", 1000)
    place.create(f"small/{'0' * 64}/{MANIFEST}", b" " * 1001)
    with pytest.raises(StoreFailed, match="larger than 1000 bytes"):
        find(place, "small", "0" * 64)


def test_a_pull_that_does_not_fit_is_refused_before_a_byte(
    place: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(place, folder)
    files = {
        name: file.model_copy(update={"bytes": 2**41})
        for name, file in version.manifest.files.items()
    }
    huge = Version("small", version.digest, version.manifest.model_copy(update={"files": files}))
    with pytest.raises(StoreFailed, match="are free"):
        pull(place, huge, tmp_path / "cache")
    assert not (tmp_path / "cache" / version.digest).exists()


def test_an_adapter_is_published_as_such(place: Storage, tmp_path: Path) -> None:
    version = upload(place, make_folder(tmp_path / "adapter", base="a" * 64))
    assert find(place, "small", version.digest).manifest.base == "a" * 64


def test_a_cache_that_cannot_be_written_is_one_sentence(
    place: Storage, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(StoreFailed, match="cannot be kept in cache"):
        pull(place, upload(place, folder), tmp_path / "cache")


def test_a_killed_upload_leaves_nothing_that_is_listed(tmp_path: Path, folder: Path) -> None:
    """The process ends without any clean-up, in the middle of a file."""
    registry = tmp_path / "registry"
    child = os.fork()
    if child == 0:
        copied = 0

        def die(source: Any, target: Any, block: int = 0) -> None:
            nonlocal copied
            copied += 1
            target.write(source.read(100))
            target.flush()
            if copied == 2:
                os._exit(9)

        shutil.copyfileobj = die  # type: ignore[assignment]
        upload(LocalPlace(registry), folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert names(LocalPlace(registry)) == []
    check(LocalPlace(registry), upload(LocalPlace(registry), folder))
