"""A version is seen when it is whole, and what is pulled is what was published."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    CheckpointUnusable,
    manifest_digest,
)
from model_store.registry import versions
from model_store.registry.storage import LocalStorage, RegistryFailed, Storage, open_storage
from model_store.registry.versions import (
    Version,
    check,
    check_sizes,
    find_by_digest,
    names,
    pull,
    upload,
)
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


def overwrite(storage: Storage, path: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    storage.put(tmp_path / "other", path)


class Failing:
    """A storage whose every write after the first few fails, as on a full disk."""

    def __init__(self, storage: Storage, calls: int) -> None:
        self._storage, self._left = storage, calls
        self.name = storage.name

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            if name in ("put", "create"):
                if self._left == 0:
                    raise RegistryFailed("The disk is full.")
                self._left -= 1
            return getattr(self._storage, name)(*args)

        return call


def test_what_is_uploaded_is_listed_and_found(storage: Storage, folder: Path) -> None:
    version = upload(storage, folder)
    assert version.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert names(storage) == ["small"]
    assert versions.versions(storage, "small") == [version]

    for prefix in (version.digest, version.digest[:8], f"sha256:{version.digest[:20]}"):
        assert find_by_digest(storage, "small", prefix) == version


def test_uploading_again_changes_nothing(root: str, storage: Storage, folder: Path) -> None:
    assert upload(storage, folder) == upload(open_storage(root), folder)
    assert len(versions.versions(storage, "small")) == 1


def test_a_broken_folder_is_not_uploaded(storage: Storage, folder: Path) -> None:
    (folder / "config.json").write_bytes(b"[]")
    with pytest.raises(CheckpointUnusable, match=r"config\.json is not the file"):
        upload(storage, folder)

    (folder / MANIFEST).unlink()

    with pytest.raises(CheckpointUnusable, match="only what `gmr publish` made"):
        upload(storage, folder)
    assert storage.names("") == []


@pytest.mark.parametrize("calls", range(len(FILES) + 1))
def test_a_half_written_version_is_never_visible(
    storage: Storage, folder: Path, calls: int
) -> None:
    with pytest.raises(RegistryFailed, match="disk is full"):
        upload(Failing(storage, calls), folder)
    assert names(storage) == []
    with pytest.raises(RegistryFailed, match="has no version"):
        find_by_digest(storage, "small", manifest_digest(folder))

    version = upload(storage, folder)
    check(storage, version)


def test_a_pulled_folder_is_the_published_one(
    root: str, storage: Storage, folder: Path, tmp_path: Path
) -> None:
    moved: list[int] = []
    pulled = pull(storage, upload(storage, folder), tmp_path / "cache", moved.append)

    assert contents(pulled) == contents(folder)
    assert sum(moved) == sum(map(len, FILES.values()))


def test_what_was_pulled_is_not_loaded_again(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(storage, folder)
    first = pull(storage, version, tmp_path / "cache")
    moved: list[int] = []

    assert pull(storage, version, tmp_path / "cache", moved.append) == first
    assert moved == []


def test_a_cache_that_was_damaged_is_made_whole(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(storage, folder)
    pulled = pull(storage, version, tmp_path / "cache")
    (pulled / "model.safetensors").write_bytes(b"damaged")

    assert contents(pull(storage, version, tmp_path / "cache")) == contents(folder)


def test_an_interrupted_pull_leaves_nothing_that_resolves_and_goes_on(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(storage, folder)
    cache = tmp_path / "cache"

    def stop(count: int) -> None:
        if count > 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(storage, version, cache, stop)
    assert not (cache / version.digest).exists()

    moved: list[int] = []
    pull(storage, version, cache, moved.append)

    assert sum(moved) == len(FILES["tokenizer.json"])  # all that came before had arrived


def test_many_pull_at_once(storage: Storage, folder: Path, tmp_path: Path) -> None:
    version = upload(storage, folder)
    pulled: list[Path] = []
    moved: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: pulled.append(pull(storage, version, tmp_path / "cache", moved.append))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()

    for thread in threads:
        thread.join()

    assert pulled == [tmp_path / "cache" / version.digest] * 6
    assert sum(moved) == version.bytes


@pytest.mark.parametrize(
    "content",
    [b"", b"short", FILES["model.safetensors"][:-1] + b"x", FILES["model.safetensors"] + b"more"],
)
def test_a_file_that_was_changed_is_refused(
    storage: Storage, folder: Path, tmp_path: Path, content: bytes
) -> None:
    version = upload(storage, folder)
    overwrite(storage, f"small/{version.digest}/model.safetensors", content, tmp_path)
    for use in (check, lambda *given: pull(*given, tmp_path / "cache")):
        with pytest.raises(
            RegistryFailed, match=r"model\.safetensors is not the file that was published"
        ):
            use(storage, version)

    assert not (tmp_path / "cache" / version.digest).exists()

    if len(content) != len(FILES["model.safetensors"]):
        with pytest.raises(RegistryFailed, match="missing or not whole"):
            check_sizes(storage, version)


def test_a_file_that_is_gone_is_refused(tmp_path: Path, folder: Path) -> None:
    storage = LocalStorage(tmp_path / "registry")
    version = upload(storage, folder)
    (tmp_path / "registry" / "small" / version.digest / "config.json").unlink()

    with pytest.raises(RegistryFailed, match=r"config\.json"):
        pull(storage, version, tmp_path / "cache")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest + b" ",
        lambda manifest: manifest.replace(b'"seed": 0', b'"seed": 1'),
        lambda manifest: b"{}",
    ],
)
def test_a_manifest_that_was_changed_is_refused(
    storage: Storage, folder: Path, tmp_path: Path, change: Any
) -> None:
    version = upload(storage, folder)
    overwrite(
        storage,
        f"small/{version.digest}/{MANIFEST}",
        change((folder / MANIFEST).read_bytes()),
        tmp_path,
    )
    with pytest.raises(RegistryFailed, match="not the one that was published"):
        find_by_digest(storage, "small", version.digest)


def test_a_version_under_another_name_is_refused(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(storage, folder)
    storage.put(folder / MANIFEST, f"other/{version.digest}/{MANIFEST}")
    with pytest.raises(RegistryFailed, match="is that of 'small'"):
        find_by_digest(storage, "other", version.digest)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "/etc", "a\\b", "a b", "é", "x" * 129, ".hidden", "a\0"]
)
def test_a_name_that_leads_elsewhere_is_refused(
    storage: Storage, tmp_path: Path, name: str
) -> None:
    with pytest.raises(RegistryFailed, match="no model's name"):
        find_by_digest(storage, name, "0" * 64)
    if 0 < len(name) <= 128:
        with pytest.raises(RegistryFailed, match="no model's name"):
            upload(storage, make_folder(tmp_path / "named", name=name))


@pytest.mark.parametrize(
    "prefix", ["", "0" * 7, "0" * 65, "G" * 8, "../../..", "sha256:", "ABCDEF01"]
)
def test_a_digest_that_is_none_is_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(RegistryFailed, match="is no digest"):
        find_by_digest(storage, "small", prefix)


@pytest.mark.parametrize("file", ["../up", "/etc/passwd", "a/../../b"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(
    storage: Storage, folder: Path, tmp_path: Path, file: str
) -> None:
    text = (folder / MANIFEST).read_text(encoding="utf-8").replace('"config.json"', f'"{file}"')
    digest = hashlib.sha256(text.encode()).hexdigest()
    storage.create(f"small/{digest}/{MANIFEST}", text.encode())

    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        find_by_digest(storage, "small", digest)


@pytest.mark.parametrize(
    "change",
    [('"schema_version": 1', '"schema_version": 2'), ('"bytes": 0', '"bytes": 9999999999999999')],
)
def test_an_unknown_schema_or_an_absurd_size_is_refused(
    storage: Storage, folder: Path, change: tuple[str, str]
) -> None:
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    assert change[0] in text

    digest = hashlib.sha256(text.replace(*change).encode()).hexdigest()
    storage.create(f"small/{digest}/{MANIFEST}", text.replace(*change).encode())

    with pytest.raises(CheckpointUnusable, match="not a valid manifest"):
        find_by_digest(storage, "small", digest)


def test_a_manifest_that_is_endless_is_refused(storage: Storage) -> None:
    storage.create(f"small/{'0' * 64}/{MANIFEST}", b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(RegistryFailed, match=f"larger than {MAX_MANIFEST_BYTES} bytes"):
        find_by_digest(storage, "small", "0" * 64)


def test_a_pull_that_does_not_fit_is_refused_before_a_byte(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    version = upload(storage, folder)
    files = {
        name: file.model_copy(update={"bytes": 2**41})
        for name, file in version.manifest.files.items()
    }
    huge = Version("small", version.digest, version.manifest.model_copy(update={"files": files}))

    with pytest.raises(RegistryFailed, match="are free"):
        pull(storage, huge, tmp_path / "cache")
    assert not (tmp_path / "cache" / version.digest).exists()


def test_an_adapter_is_published_as_such(storage: Storage, tmp_path: Path) -> None:
    version = upload(storage, make_folder(tmp_path / "adapter", base="a" * 64))
    assert find_by_digest(storage, "small", version.digest).manifest.base == "a" * 64


def test_a_cache_that_cannot_be_written_is_one_sentence(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(RegistryFailed, match="cannot be kept in cache"):
        pull(storage, upload(storage, folder), tmp_path / "cache")


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
        upload(LocalStorage(registry), folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 9
    assert names(LocalStorage(registry)) == []

    check(LocalStorage(registry), upload(LocalStorage(registry), folder))
