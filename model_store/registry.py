"""From a model's name to a checkpoint that can be loaded: one that ships, a local folder, a registry's, or a model hub's.

Knows where checkpoints lie and whether they are whole, nothing of networks. Invariant: what `resolve` returns was verified file
by file, or comes from a hub at a pinned commit.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from model_store.families.gmr import DEFAULT_INSTRUCTION, MAX_PIXELS, MAX_TOKENS, MIN_PIXELS, TEMPLATES, Gmr
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.golden import GOLDEN
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    Manifest,
    PixelBounds,
    digest_files,
    manifest_digest,
    read_manifest,
    verify,
)
from model_store.store.reference import is_reference, obtain

SHIPPED = Path(__file__).parent / "checkpoints"
PREPROCESSOR = "preprocessor_config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "golden/*.png", "MODEL_CARD.md")
_ARCHITECTURE = "Qwen2_5_VLForConditionalGeneration"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights, and how they are to be used."""

    name: str
    folder: Path
    manifest: Manifest

    @cached_property
    def family(self) -> Gmr:
        """How the checkpoint reads a pair; raises `CheckpointUnusable` where tokenizer and family do not fit."""
        if self.manifest.family != Gmr.name:
            raise CheckpointUnusable(f"{self.name}: the model family {self.manifest.family!r} is not known.")
        if self.manifest.template not in TEMPLATES:
            raise CheckpointUnusable(f"{self.name}: the template {self.manifest.template!r} is not known.")
        try:
            tokenizer = LiteralTokenizer.load(self.folder)
            return Gmr(tokenizer, template=self.manifest.template, max_tokens=self.manifest.max_tokens)
        except FileNotFoundError:
            raise CheckpointUnusable(f"{self.name}: there is no tokenizer.json.") from None
        except (TokenizerMismatch, ValueError) as error:
            raise CheckpointUnusable(f"{self.name}: {error}.") from None

    @property
    def digest(self) -> str:
        """Of all that decides a score but the engine: files, family, template, limits."""
        described = self.manifest.model_dump(exclude={"lineage", "name", "base"}) | {"prompt": self.family.fingerprint}
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter (peft's folder) that is served under a name of its own on top of a checkpoint."""

    name: str
    folder: Path
    rank: int
    digest: str


def resolve(
    name: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    registry: str | None = None,
    weights: bool = True,
) -> Checkpoint:
    """The checkpoint of a name.

    That is one that ships; a folder's path; `NAME@production` or `NAME@sha256:...` in `registry`, a folder or URL; the same with
    the registry's URL before it; or a hub id such as `vec-ai/lychee-rerank-mm`, which needs `revision`, the 40 hex digits of a
    commit. A folder may lack `weights` where the caller can do without, as for sizing. Raises `CheckpointUnusable` with one
    sentence.
    """
    if name in shipped():
        return _local(name, SHIPPED / name)
    if Path(name).is_dir():
        return _local(Path(name).resolve().name, Path(name), weights=weights)
    if is_reference(name):
        folder, manifest = obtain(name, registry, cache)
        return Checkpoint(manifest.name, folder, _no_adapter(manifest))
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return _from_hub(name, revision, cache)
    raise CheckpointUnusable(f"There is no model {name!r}: it is no folder, no hub id, and none of {', '.join(shipped())}.")


def resolve_adapter(
    name: str, folder: Path, *, cache: Path | None = None, registry: str | None = None, model: Checkpoint | None = None
) -> Adapter:
    """An adapter's folder, or one that a registry has (as for `resolve`), verified where it has a manifest.

    Raises `CheckpointUnusable` with one sentence, also where its manifest names another base than `model`.
    """
    if not folder.is_dir() and is_reference(str(folder)):
        folder, _ = obtain(str(folder), registry, cache)
    manifest = read_manifest(folder)
    if manifest is not None:
        verify(folder, manifest)
        if model and manifest.base and manifest.base != model.digest:
            raise CheckpointUnusable(f"{name} was trained on another checkpoint than {model.name} (its manifest's base differs).")
    try:
        rank = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"]
        files = digest_files(folder, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    except (OSError, ValueError, TypeError, KeyError):
        raise CheckpointUnusable(f"{name}: {folder.name} is no LoRA adapter ({ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}).") from None
    if not isinstance(rank, int) or rank < 1:
        raise CheckpointUnusable(f"{name}: {ADAPTER_CONFIG} states no rank.")
    described = {file: digest.sha256 for file, digest in files.items()}
    return Adapter(name, folder, rank, hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest())


def version_of(served: Checkpoint | Adapter) -> str:
    """What a registry lists it under; empty where it has no manifest."""
    return f"sha256:{manifest_digest(served.folder)}" if (served.folder / MANIFEST).exists() else ""


def shipped() -> list[str]:
    """The names that come with the code."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def _local(name: str, folder: Path, *, weights: bool = True) -> Checkpoint:
    manifest = read_manifest(folder)
    if manifest is None:
        return Checkpoint(name, folder, _describe(name, folder, weights=weights))
    verify(folder, _no_adapter(manifest))
    return Checkpoint(manifest.name, folder, manifest)


def _no_adapter(manifest: Manifest) -> Manifest:
    if manifest.base:
        raise CheckpointUnusable(f"{manifest.name} is an adapter: serve its base, and name it in RERANK_ADAPTERS.")
    return manifest


def _from_hub(name: str, revision: str | None, cache: Path | None) -> Checkpoint:
    from huggingface_hub import snapshot_download

    if revision is None or not re.fullmatch("[0-9a-f]{40}", revision):
        raise CheckpointUnusable(f"{name} is a hub model: set RERANK_MODEL_REVISION to the commit (40 hex digits) to serve.")
    try:
        folder = Path(snapshot_download(name, revision=revision, cache_dir=cache, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # the hub's client lets its transport's errors through, whichever that is
        raise CheckpointUnusable(f"{name} at {revision} cannot be had from the hub ({type(error).__name__}).") from None
    return replace(_local(name, folder), name=name)


def _describe(name: str, folder: Path, *, weights: bool = True) -> Manifest:
    """A manifest for a folder that has none: a GMR checkpoint as its authors publish it."""
    if (folder / GOLDEN).exists():
        raise CheckpointUnusable(f"{name}: it has {GOLDEN} but no {MANIFEST}, so it was not published to the end.")
    try:
        architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError, AttributeError):
        raise CheckpointUnusable(f"{name}: there is no readable config.json.") from None
    if architectures != [_ARCHITECTURE]:
        raise CheckpointUnusable(f"{name}: only {_ARCHITECTURE} checkpoints can be served.")
    files = [
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".jinja")
    ]
    if weights and not any(file.endswith(".safetensors") for file in files):
        raise CheckpointUnusable(f"{name}: there are no safetensors weights.")
    return Manifest(
        name=name,
        family=Gmr.name,
        template="code",
        default_instruction=DEFAULT_INSTRUCTION,
        max_tokens=MAX_TOKENS,
        pixels=_pixel_bounds(name, folder),
        files=digest_files(folder, files),
    )


def _pixel_bounds(name: str, folder: Path) -> PixelBounds:
    """The bounds that the checkpoint's own processor states, within the family's."""
    try:
        stated = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        size = stated.get("size") or {}
        least = stated.get("min_pixels") or size.get("shortest_edge") or MIN_PIXELS
        most = stated.get("max_pixels") or size.get("longest_edge") or MAX_PIXELS
        return PixelBounds(min_pixels=max(least, MIN_PIXELS), max_pixels=min(most, MAX_PIXELS))
    except FileNotFoundError:
        return PixelBounds(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    except (OSError, ValueError, AttributeError, TypeError):
        raise CheckpointUnusable(f"{name}: {PREPROCESSOR} cannot be read.") from None
