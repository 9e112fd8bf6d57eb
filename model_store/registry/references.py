"""References to published versions, such as `NAME@production` or `s3://bucket/NAME@sha256:...`, and
the folder on this machine that a reference stands for.

Does not depend on what a version holds. Invariant: a reference means a version of exactly one
registry, which the reference or its caller names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from model_store.manifest import Manifest
from model_store.registry.channels import current, is_channel
from model_store.registry.storage import RegistryFailed, Storage, open_storage
from model_store.registry.versions import Progress, Version, find_by_digest, no_progress, pull

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference in its parts."""

    registry: str
    """The registry's folder or URL."""
    name: str
    version: str
    """A channel, or a digest or its beginning."""


def is_reference(text: str) -> bool:
    """True for a model's name that refers to a registry."""
    return "://" in text or "@" in text


def parse_reference(text: str, registry: str | None) -> Reference:
    """Split a reference; `registry` is used where the reference names none.

    A version's own URL, `.../NAME/DIGEST`, is a reference too. Raises `RegistryFailed` where the
    registry, the name or the version is missing.
    """
    root, _, last = text.rpartition("/")
    if "://" in text and _DIGEST.fullmatch(last):
        root, _, name = root.rpartition("/")
        last = f"{name}@{last}"

    name, _, version = last.partition("@")
    names_no_folder = "://" in text and root.endswith(":/")
    if not name or not version or names_no_folder:
        raise RegistryFailed(
            "A model of a registry is written NAME@production or NAME@sha256:..., behind the"
            " registry's URL or alone."
        )
    if not root and not registry:
        raise RegistryFailed(f"{last} is in a registry: set RERANK_REGISTRY to its folder or URL.")
    return Reference(root or str(registry), name, version)


def find_version(storage: Storage, name: str, version: str) -> Version:
    """The version that a channel, a digest or its beginning stands for; raises `RegistryFailed`."""
    if not is_channel(version):
        return find_by_digest(storage, name, version)

    promotion = current(storage, name, version)
    if promotion is None:
        raise RegistryFailed(
            f"{name} has no version in {version}: `gmr models promote` puts one there."
        )
    return find_by_digest(storage, name, promotion.digest)


def fetch(
    text: str,
    registry: str | None,
    cache: Path | None,
    progress: Progress = no_progress,
) -> tuple[Path, Manifest]:
    """The verified folder and the manifest of a reference.

    Downloads what `cache` does not hold yet; raises `RegistryFailed`.
    """
    reference = parse_reference(text, registry)
    storage = open_storage(reference.registry)
    version = find_version(storage, reference.name, reference.version)
    return pull(storage, version, cache_folder(cache), progress), version.manifest


def cache_folder(cache: Path | None) -> Path:
    """The folder that keeps pulled versions; `cache` is the configured one."""
    standard = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gmr-rerank"
    return (cache or standard) / "registry"
