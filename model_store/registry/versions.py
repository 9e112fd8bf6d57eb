"""Published versions. A version is a folder `NAME/DIGEST/`, where the digest is the SHA-256 of its
manifest, and the manifest has the SHA-256 of every file.

Does not depend on networks or channels. Invariant: a version exists once its manifest does, which
is written last and once; `pull` returns exactly the bytes that the digest stands for.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_store.files import sha256, sync
from model_store.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    CheckpointUnusable,
    FileDigest,
    Manifest,
    manifest_digest,
    parse_manifest,
    read_manifest,
    verify,
)
from model_store.registry.storage import RegistryFailed, Storage

MAX_VERSIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile("[0-9a-f]{64}")
_PREFIX = re.compile("[0-9a-f]{8,64}")
_BLOCK_BYTES = 2**22

Progress = Callable[[int], None]
"""Called with the number of bytes that were moved since the last call."""


def no_progress(count: int) -> None:
    """Progress that is not shown."""


@dataclass(frozen=True, slots=True)
class Version:
    """One published version of a name."""

    name: str
    digest: str
    manifest: Manifest

    @property
    def path(self) -> str:
        """The version's folder in a storage."""
        return f"{self.name}/{self.digest}"

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.manifest.files.values())


def names(storage: Storage) -> list[str]:
    """Every name that has a published version."""
    return [name for name in storage.names("") if _NAME.fullmatch(name) and versions(storage, name)]


def versions(storage: Storage, name: str) -> list[Version]:
    """A name's versions, by digest. Folders without a manifest are left out."""
    check_name(name)
    digests = [digest for digest in storage.names(name) if _DIGEST.fullmatch(digest)]
    if len(digests) > MAX_VERSIONS:
        raise RegistryFailed(f"{name} has more than {MAX_VERSIONS} versions.")
    return _read_versions(storage, name, digests)


def find_by_digest(storage: Storage, name: str, prefix: str) -> Version:
    """The version whose digest begins with `prefix`, 8 to 64 hex digits; raises `RegistryFailed`
    unless there is exactly one."""
    check_name(name)
    prefix = prefix.removeprefix("sha256:")
    if not _PREFIX.fullmatch(prefix):
        raise RegistryFailed(f"{prefix[:80]!r} is no digest: give 8 to 64 hex digits.")

    digests = [
        digest
        for digest in storage.names(name)
        if _DIGEST.fullmatch(digest) and digest.startswith(prefix)
    ]
    found = _read_versions(storage, name, digests[:MAX_VERSIONS])
    if len(found) != 1:
        count = "several versions" if found else "no version"
        raise RegistryFailed(f"{name} has {count} {prefix}.")
    return found[0]


def check_name(name: str) -> None:
    """Raise `RegistryFailed` where a name could lead out of the registry."""
    if not _NAME.fullmatch(name):
        raise RegistryFailed(
            f"{name[:140]!r} is no model's name: letters, digits, dots, dashes and underscores make"
            " one."
        )


def upload(storage: Storage, folder: Path, progress: Progress = no_progress) -> Version:
    """Publish a folder under the name in its manifest. A version that exists is not written again.

    Raises `CheckpointUnusable` where the folder is not whole, before anything is written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointUnusable(
            f"{folder.name} has no {MANIFEST}: only what `gmr publish` made can be uploaded."
        )
    check_name(manifest.name)
    verify(folder, manifest)

    version = Version(manifest.name, manifest_digest(folder), manifest)
    if _read_version(storage, version.name, version.digest) is None:
        for file, expected in sorted(manifest.files.items()):
            storage.put(folder / file, f"{version.path}/{file}")
            progress(expected.bytes)
        check_sizes(storage, version)
        storage.create(f"{version.path}/{MANIFEST}", (folder / MANIFEST).read_bytes())
    return find_by_digest(storage, version.name, version.digest)


def check_sizes(storage: Storage, version: Version) -> None:
    """Compare every file's size with the manifest, without reading the files.

    Raises `RegistryFailed` that names the first file that is missing or cut.
    """
    for file, expected in sorted(version.manifest.files.items()):
        if storage.size(f"{version.path}/{file}") != expected.bytes:
            raise RegistryFailed(f"{version.name}: {file} is missing or not whole.")


def check(storage: Storage, version: Version, progress: Progress = no_progress) -> None:
    """Read every file of a version and compare it with the manifest; raises `RegistryFailed` that
    names the first file that differs."""
    for file, expected in sorted(version.manifest.files.items()):
        for block in _verified_blocks(storage, version, file, expected):
            progress(len(block))


def pull(storage: Storage, version: Version, cache: Path, progress: Progress = no_progress) -> Path:
    """A version's folder under `cache`; a folder that is whole is not downloaded again.

    Other processes that pull the same version wait. An interrupted pull goes on with the files that
    it left, once they are verified.
    """
    folder = cache / version.digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f".{version.digest}.lock"):
            if not _is_whole(folder, version.manifest):
                draft = cache / f".{version.digest}.part"
                _download(storage, version, draft, progress)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
    except OSError as error:
        raise RegistryFailed(
            f"{version.name} cannot be kept in {cache.name} ({error.strerror})."
        ) from None
    return folder


def _download(storage: Storage, version: Version, draft: Path, progress: Progress) -> None:
    """Complete a draft of a version's folder, its manifest last."""
    draft.mkdir(exist_ok=True)
    missing = {
        file: expected
        for file, expected in sorted(version.manifest.files.items())
        if not _has(draft / file, expected)
    }
    needed = sum(expected.bytes for expected in missing.values())
    free = shutil.disk_usage(draft).free
    if needed > free:
        raise RegistryFailed(f"{version.name} needs {needed} bytes where {free} are free.")

    for file, expected in missing.items():
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        with (draft / file).open("wb") as target:
            for block in _verified_blocks(storage, version, file, expected):
                target.write(block)
                progress(len(block))
        sync(draft / file)

    content = storage.read(f"{version.path}/{MANIFEST}", MAX_MANIFEST_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != version.digest:
        raise RegistryFailed(f"{version.name}: the manifest changed while it was pulled.")
    (draft / MANIFEST).write_bytes(content)


def _verified_blocks(
    storage: Storage, version: Version, file: str, expected: FileDigest
) -> Iterator[bytes]:
    """A file's bytes, never more than the manifest states; raises `RegistryFailed` at the end where
    they are not the file that was published."""
    total, size = hashlib.sha256(), 0
    try:
        with storage.open(f"{version.path}/{file}") as source:
            while block := source.read(min(_BLOCK_BYTES, expected.bytes - size + 1)):
                total.update(block)
                size += len(block)
                if size > expected.bytes:
                    break
                yield block
    except Exception as error:  # `RegistryFailed`, or any exception of a library while it reads
        raise RegistryFailed(
            f"{version.name}: {file} cannot be read ({type(error).__name__})."
        ) from None

    if FileDigest(sha256=total.hexdigest(), bytes=min(size, expected.bytes)) != expected:
        raise RegistryFailed(
            f"{version.name}: {file} is not the file that was published (SHA-256 differs)."
        )


def _read_versions(storage: Storage, name: str, digests: list[str]) -> list[Version]:
    found = [_read_version(storage, name, digest) for digest in digests]
    return [version for version in found if version is not None]


def _read_version(storage: Storage, name: str, digest: str) -> Version | None:
    """A version from its manifest; None where there is no manifest, `RegistryFailed` where the
    manifest is not the one that the digest stands for."""
    content = storage.read(f"{name}/{digest}/{MANIFEST}", MAX_MANIFEST_BYTES)
    if content is None:
        return None

    if hashlib.sha256(content).hexdigest() != digest:
        raise RegistryFailed(f"{name}/{digest[:12]}: {MANIFEST} is not the one that was published.")
    manifest = parse_manifest(content, f"{name}/{digest[:12]}")
    if manifest.name != name:
        raise RegistryFailed(f"{name}/{digest[:12]}: {MANIFEST} is that of {manifest.name!r}.")
    return Version(name, digest, manifest)


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    try:
        if read_manifest(folder) != manifest:
            return False
        verify(folder, manifest)
    except CheckpointUnusable:
        return False
    return True


def _has(path: Path, expected: FileDigest) -> bool:
    """True if the expected file is at a path already."""
    try:
        return path.stat().st_size == expected.bytes and sha256(path) == expected.sha256
    except OSError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
