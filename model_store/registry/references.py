"""`NAME@production`, `NAME@sha256:...`, and the same behind a registry's URL: which version that
is, and its folder here.

Knows names, nothing of what a version holds. Invariant: a name means a version of one registry,
never one that happened to be near.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from model_store.manifest import Manifest
from model_store.registry.channels import current, is_channel
from model_store.registry.storage import Storage, StoreFailed, place_of
from model_store.registry.versions import Version, find, pull

_DIGEST_FOLDER = re.compile("[0-9a-f]{64}")


def is_reference(text: str) -> bool:
    """Whether a name is meant for a registry."""
    return "://" in text or "@" in text


def split(text: str, registry: str | None) -> tuple[str, str, str]:
    """(the registry's place, the name, the channel or digest); raises `StoreFailed` where one of
    them is not said."""
    root, _, last = text.rpartition("/")
    if "://" in text and _DIGEST_FOLDER.fullmatch(last):
        root, _, name = root.rpartition("/")
        last = f"{name}@{last}"
    name, at, which = last.partition("@")
    if not at or not name or not which or ("://" in text and root.endswith(":/")):
        raise StoreFailed(
            "A model of a registry is written NAME@production or NAME@sha256:..., behind the"
            " registry's URL or alone."
        )
    if not root and not registry:
        raise StoreFailed(f"{last} is in a registry: set RERANK_REGISTRY to its folder or URL.")
    return root or str(registry), name, which


def locate(place: Storage, name: str, which: str) -> Version:
    """The version that a channel or a digest's beginning stands for; raises `StoreFailed`."""
    if not is_channel(which):
        return find(place, name, which)
    promotion = current(place, name, which)
    if promotion is None:
        raise StoreFailed(f"{name} has no version in {which}: `gmr models promote` puts one there.")
    return find(place, name, promotion.digest)


def fetch(
    text: str,
    registry: str | None,
    cache: Path | None,
    tell: Callable[[int], None] = lambda count: None,
) -> tuple[Path, Manifest]:
    """The verified folder of what a name stands for, loaded where it is not there yet; raises
    `StoreFailed`."""
    root, name, which = split(text, registry)
    place = place_of(root)
    version = locate(place, name, which)
    return pull(place, version, kept_in(cache), tell), version.manifest


def kept_in(cache: Path | None) -> Path:
    """Where versions are kept on this machine."""
    standard = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gmr-rerank"
    return (cache or standard) / "registry"
