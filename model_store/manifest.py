"""The manifest of a checkpoint: its family, its limits, and every file's SHA-256.

Depends on files and their digests, not on networks. A folder's `manifest.json` is written last.
Invariant: a folder whose manifest verifies is complete and unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from model_store.calibration.description import CALIBRATION, Calibration
from model_store.files import sha256, sha256_each, write_atomically

MANIFEST = "manifest.json"
CASCADE_FAMILY = "cascade"
"""The family in the manifest of a cascade, which has no network of its own."""
WEIGHTS_SUFFIX = ".safetensors"
MAX_MANIFEST_BYTES = 2**23
MAX_FILES = 10_000
MAX_FILE_BYTES = 2**41


class CheckpointUnusable(Exception):
    """A checkpoint that must not be served; the text is one sentence for the operator."""


class FileDigest(BaseModel):
    """The size and SHA-256 of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)


class PixelBounds(BaseModel):
    """The smallest and the largest area that an image is resized to, in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_pixels: int = Field(ge=1)
    max_pixels: int = Field(ge=1)


def _inside(name: str) -> str:
    """Validate a file's name: a plain relative path that cannot lead out of the folder."""
    path = PurePosixPath(name)
    normal = str(path) == name and bool(path.parts)
    leads_out = path.is_absolute() or ".." in path.parts
    if not normal or leads_out or "\\" in name or "\0" in name:
        raise ValueError("not a path inside the folder")
    return name


def _with_valid_calibration(lineage: dict[str, Any]) -> dict[str, Any]:
    """Validate the calibration of a lineage that has one."""
    if CALIBRATION in lineage:
        Calibration.model_validate(lineage[CALIBRATION])
    return lineage


class Manifest(BaseModel):
    """A checkpoint's own description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    name: str = Field(min_length=1, max_length=128)
    family: str
    template: str
    default_instruction: str
    max_tokens: int = Field(ge=64, le=2**20)
    pixels: PixelBounds | None = Field(
        None, description="Bounds on the area of images; absent where the model reads text only."
    )
    files: dict[Annotated[str, AfterValidator(_inside)], FileDigest] = Field(max_length=MAX_FILES)
    base: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="Of an adapter alone: the digest of the checkpoint that it was trained on.",
    )
    read_out: str = Field(
        "",
        max_length=128,
        description="The read-out by name, such as 'yes'; absent: the family's default.",
    )
    transform: str = Field(
        "sigmoid",
        max_length=128,
        description="The function from the raw score to a probability, by name.",
    )
    lineage: Annotated[dict[str, Any], AfterValidator(_with_valid_calibration)] = Field(
        default_factory=dict,
        description="How the checkpoint was made, and its calibration, if it has one.",
    )

    @property
    def kind(self) -> Literal["checkpoint", "adapter", "cascade"]:
        """The kind of model that the folder holds."""
        if self.family == CASCADE_FAMILY:
            return "cascade"
        return "adapter" if self.base else "checkpoint"

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of its scores.

        It is an entry of the lineage, so that releases without calibrations read the manifest, too,
        and the digest of what decides scores leaves it out.
        """
        entry = self.lineage.get(CALIBRATION)
        return None if entry is None else Calibration.model_validate(entry)

    def scores_digest(self, prompt: str) -> str:
        """The digest of all that decides a score but the engine: files, limits, and the family's
        prompt, by its fingerprint."""
        described = self.model_dump(exclude=self.unstated | {"lineage", "name", "base"})
        described["prompt"] = prompt
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    @property
    def unstated(self) -> set[str]:
        """Fields that have their default and were added after the first manifests were published.

        They are left out of files and digests, so that earlier ones stay valid.
        """
        defaults = {"pixels": None, "read_out": "", "transform": "sigmoid"}
        return {name for name, default in defaults.items() if getattr(self, name) == default}


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, FileDigest]:
    """Size and SHA-256 of files of a folder, by name."""
    ordered = sorted(names)
    digests = sha256_each([folder / name for name in ordered])
    return {
        name: FileDigest(sha256=digest, bytes=(folder / name).stat().st_size)
        for name, digest in zip(ordered, digests, strict=True)
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest atomically.

    Before this step the folder is no checkpoint, and after it the checkpoint is complete.
    """
    left_out = manifest.unstated
    if not manifest.base:
        left_out.add("base")

    described = manifest.model_dump(exclude=left_out)
    text = json.dumps(described, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / MANIFEST, text.encode())


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None without one; raises `CheckpointUnusable` for one that cannot
    be read."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            return parse_manifest(file.read(MAX_MANIFEST_BYTES + 1), folder.name)
    except FileNotFoundError:
        return None
    except OSError:
        raise CheckpointUnusable(f"{folder.name}/{MANIFEST} cannot be read.") from None


def parse_manifest(content: bytes, name: str) -> Manifest:
    """A manifest from its bytes; raises `CheckpointUnusable` that names `name`."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise CheckpointUnusable(f"{name}/{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes.")

    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointUnusable(
            f"{name}/{MANIFEST} is not a valid manifest ({error.error_count()} errors)."
        ) from None

    calibration = manifest.calibration
    if calibration and manifest.scores_digest(calibration.prompt) != calibration.model:
        raise CheckpointUnusable(calibrated_elsewhere(name))
    return manifest


def calibrated_elsewhere(name: str) -> str:
    """The sentence for a model with the calibration of another one."""
    return (
        f"{name}: its calibration was fitted to another model's scores: fit it again by"
        " `gmr calibrate`."
    )


def manifest_digest(folder: Path) -> str:
    """The SHA-256 of the manifest's bytes, which stands for all files that it lists.

    Raises `CheckpointUnusable` where there is no manifest.
    """
    try:
        return sha256(folder / MANIFEST)
    except OSError:
        raise CheckpointUnusable(f"{folder.name} has no {MANIFEST}.") from None


def verify(folder: Path, manifest: Manifest, *, weights: bool = True) -> None:
    """Compare every file with the manifest.

    Without `weights`, files of weights may be missing. Raises `CheckpointUnusable` that names the
    first file which differs or is missing.
    """
    listed = {
        name: expected
        for name, expected in sorted(manifest.files.items())
        if weights or not name.endswith(WEIGHTS_SUFFIX) or (folder / name).exists()
    }
    digests = sha256_each([folder / name for name in listed])
    for name, expected in listed.items():
        try:
            digest = next(digests)
            size = (folder / name).stat().st_size
        except OSError:
            raise CheckpointUnusable(f"{folder.name}: {name} is missing.") from None

        if (digest, size) != (expected.sha256, expected.bytes):
            raise CheckpointUnusable(
                f"{folder.name}: {name} is not the file that was published (SHA-256 differs)."
            )
