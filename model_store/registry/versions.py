"""Published versions: `NAME/DIGEST/`, where the digest is the SHA-256 of the manifest, and the
manifest that of every file.

Knows folders and a `Storage`, nothing of networks or channels. Invariant: a version is there once
its manifest is, which comes last and once; what `pull` returns is, byte for byte, what the digest
stands for.
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
from model_store.registry.storage import Storage, StoreFailed

MAX_VERSIONS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile("[0-9a-f]{64}")
_PREFIX = re.compile("[0-9a-f]{8,64}")
_BLOCK = 2**22

Tell = Callable[[int], None]
"""Called with the number of bytes that were moved since it was called last."""


@dataclass(frozen=True, slots=True)
class Version:
    """One published version of a name."""

    name: str
    digest: str
    manifest: Manifest

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.manifest.files.values())


def names(place: Storage) -> list[str]:
    """Every name under which something was published."""
    return [name for name in place.names("") if _NAME.fullmatch(name) and versions(place, name)]


def versions(place: Storage, name: str) -> list[Version]:
    """A name's versions, by digest; folders without a manifest are none."""
    check_name(name)
    digests = [digest for digest in place.names(name) if _DIGEST.fullmatch(digest)]
    if len(digests) > MAX_VERSIONS:
        raise StoreFailed(f"{name} has more than {MAX_VERSIONS} versions.")
    return [version for digest in digests if (version := _version(place, name, digest))]


def find(place: Storage, name: str, prefix: str) -> Version:
    """The version whose digest begins with `prefix`, 8 to 64 hex digits; raises `StoreFailed`
    unless there is exactly one."""
    check_name(name)
    prefix = prefix.removeprefix("sha256:")
    if not _PREFIX.fullmatch(prefix):
        raise StoreFailed(f"{prefix[:80]!r} is no digest: give 8 to 64 hex digits.")
    digests = [
        digest
        for digest in place.names(name)
        if _DIGEST.fullmatch(digest) and digest.startswith(prefix)
    ]
    found = [
        version for digest in digests[:MAX_VERSIONS] if (version := _version(place, name, digest))
    ]
    if len(found) != 1:
        raise StoreFailed(
            f"{name} has {'no version' if not found else 'several versions'} {prefix}."
        )
    return found[0]


def check_name(name: str) -> None:
    """Raises `StoreFailed` where a name could lead out of the registry."""
    if not _NAME.fullmatch(name):
        raise StoreFailed(
            f"{name[:140]!r} is no model's name: letters, digits, dots, dashes and underscores make"
            " one."
        )


def upload(place: Storage, folder: Path, tell: Tell = lambda count: None) -> Version:
    """Publish a folder under the name in its manifest; one that is there already is left alone.

    Raises `CheckpointUnusable` where the folder is not whole, before anything is written.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointUnusable(
            f"{folder.name} has no {MANIFEST}: only what `gmr publish` made can be uploaded."
        )
    check_name(manifest.name)
    verify(folder, manifest)
    digest = manifest_digest(folder)
    at = f"{manifest.name}/{digest}"
    if not _version(place, manifest.name, digest):
        for file, stated in sorted(manifest.files.items()):
            place.put(folder / file, f"{at}/{file}")
            tell(stated.bytes)
        check_sizes(place, Version(manifest.name, digest, manifest))
        place.create(f"{at}/{MANIFEST}", (folder / MANIFEST).read_bytes())
    return find(place, manifest.name, digest)


def check_sizes(place: Storage, version: Version) -> None:
    """Ask for every file's size; raises `StoreFailed` naming the first that is missing or cut."""
    for file, stated in sorted(version.manifest.files.items()):
        if place.size(f"{version.name}/{version.digest}/{file}") != stated.bytes:
            raise StoreFailed(f"{version.name}: {file} is missing or not whole.")


def check(place: Storage, version: Version, tell: Tell = lambda count: None) -> None:
    """Read every file of a version and compare it with the manifest; raises `StoreFailed` naming
    the first that differs."""
    for file, stated in sorted(version.manifest.files.items()):
        for block in _blocks(place, version, file, stated):
            tell(len(block))


def pull(place: Storage, version: Version, cache: Path, tell: Tell = lambda count: None) -> Path:
    """A version's folder under `cache`; what is there already is not loaded again.

    Others that pull the same wait. What an interrupted pull left is verified and kept.
    """
    folder = cache / version.digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f".{version.digest}.lock"):
            if not _whole(folder, version.manifest):
                draft = cache / f".{version.digest}.part"
                _fetch(place, version, draft, tell)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
    except OSError as error:
        raise StoreFailed(
            f"{version.name} cannot be kept in {cache.name} ({error.strerror})."
        ) from None
    return folder


def _fetch(place: Storage, version: Version, draft: Path, tell: Tell) -> None:
    draft.mkdir(exist_ok=True)
    missing = {
        file: stated
        for file, stated in sorted(version.manifest.files.items())
        if not _same(draft / file, stated)
    }
    needed, free = sum(stated.bytes for stated in missing.values()), shutil.disk_usage(draft).free
    if needed > free:
        raise StoreFailed(f"{version.name} needs {needed} bytes where {free} are free.")
    for file, stated in missing.items():
        (draft / file).parent.mkdir(parents=True, exist_ok=True)
        with (draft / file).open("wb") as target:
            for block in _blocks(place, version, file, stated):
                target.write(block)
                tell(len(block))
        sync(draft / file)
    content = place.read(f"{version.name}/{version.digest}/{MANIFEST}", MAX_MANIFEST_BYTES)
    if content is None or hashlib.sha256(content).hexdigest() != version.digest:
        raise StoreFailed(f"{version.name}: the manifest changed while it was pulled.")
    (draft / MANIFEST).write_bytes(content)


def _blocks(place: Storage, version: Version, file: str, stated: FileDigest) -> Iterator[bytes]:
    """A file's bytes, no more than the manifest states; raises `StoreFailed` where they are
    others."""
    total, size = hashlib.sha256(), 0
    try:
        with place.open(f"{version.name}/{version.digest}/{file}") as source:
            while block := source.read(min(_BLOCK, stated.bytes - size + 1)):
                total.update(block)
                size += len(block)
                if size > stated.bytes:
                    break
                yield block
    except Exception as error:  # what the store says of it, or a library's error while it reads
        raise StoreFailed(
            f"{version.name}: {file} cannot be read ({type(error).__name__})."
        ) from None
    if FileDigest(sha256=total.hexdigest(), bytes=min(size, stated.bytes)) != stated:
        raise StoreFailed(
            f"{version.name}: {file} is not the file that was published (SHA-256 differs)."
        )


def _version(place: Storage, name: str, digest: str) -> Version | None:
    """None where there is no manifest; raises `StoreFailed` where it is not the one that the digest
    stands for."""
    content = place.read(f"{name}/{digest}/{MANIFEST}", MAX_MANIFEST_BYTES)
    if content is None:
        return None
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoreFailed(f"{name}/{digest[:12]}: {MANIFEST} is not the one that was published.")
    manifest = parse_manifest(content, f"{name}/{digest[:12]}")
    if manifest.name != name:
        raise StoreFailed(f"{name}/{digest[:12]}: {MANIFEST} is that of {manifest.name!r}.")
    return Version(name, digest, manifest)


def _whole(folder: Path, manifest: Manifest) -> bool:
    try:
        if read_manifest(folder) != manifest:
            return False
        verify(folder, manifest)
    except CheckpointUnusable:
        return False
    return True


def _same(path: Path, stated: FileDigest) -> bool:
    """Whether a file is there already, as stated."""
    try:
        return path.stat().st_size == stated.bytes and sha256(path) == stated.sha256
    except OSError:
        return False


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
