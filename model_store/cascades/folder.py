"""A cascade's folder: `cascade.json` with its description, a card, and a manifest, by which a
registry keeps it as it keeps a checkpoint.

Depends on files, not on networks. Invariant: a cascade that `read_cascade` returns is the one that
was published, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from model_store.cascades.description import Cascade
from model_store.manifest import (
    CASCADE_FAMILY,
    CheckpointUnusable,
    manifest_digest,
    read_manifest,
    verify,
)

CASCADE = "cascade.json"
MAX_CASCADE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class PublishedCascade:
    """A cascade, and the version that a registry lists it under."""

    cascade: Cascade
    version: str


def read_cascade(folder: Path) -> PublishedCascade:
    """The cascade in a folder; raises `CheckpointUnusable` with one sentence."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.family != CASCADE_FAMILY or CASCADE not in manifest.files:
        raise CheckpointUnusable(f"{folder} is not the folder of a cascade.")
    if manifest.files[CASCADE].bytes > MAX_CASCADE_BYTES:
        raise CheckpointUnusable(f"{folder}: {CASCADE} is larger than {MAX_CASCADE_BYTES} bytes.")
    verify(folder, manifest)

    try:
        content = (folder / CASCADE).read_bytes()
    except OSError:
        raise CheckpointUnusable(f"{folder}: {CASCADE} cannot be read.") from None
    return PublishedCascade(parse_cascade(content, folder), f"sha256:{manifest_digest(folder)}")


def parse_cascade(content: bytes, folder: Path) -> Cascade:
    """A description from its bytes; raises `CheckpointUnusable` that names the first field which is
    wrong."""
    try:
        return Cascade.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointUnusable(f"{folder}/{CASCADE}: {first_problem(error)}.") from None


def first_problem(error: ValidationError) -> str:
    """The field and the sentence of pydantic's first problem."""
    first = error.errors()[0]
    field = "/".join(str(part)[:80] for part in first["loc"]) or "it"
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
