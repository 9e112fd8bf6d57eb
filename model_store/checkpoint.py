"""A model's name to a checkpoint that can be loaded.

A name is that of a checkpoint that ships, a local folder, a version in a registry, or a model of a
hub. Depends on folders, registry and hub, and loads no network. Invariant: a checkpoint that
`resolve` returns was verified file by file, or comes from a hub at a pinned commit.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from model_store.adapters.fit import refuse_unless_fits, refuse_unless_read_alike
from model_store.adapters.folder import read_adapter
from model_store.calibration.description import Calibration
from model_store.families.catalogue import family_named, family_of
from model_store.families.family import Family
from model_store.families.qwen2_tokenizer import missing_parts
from model_store.families.readout import ReadOut, Transform, transform_of
from model_store.families.tokens import LiteralTokenizer, TokenizerMismatch
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.folders.plain import (
    architecture_of,
    describe_folder,
    family_of_folder,
    network_facts,
    read_config,
    refuse_other_network,
    refuse_other_tokens,
    refuse_unloadable,
)
from model_store.hub import download
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    Manifest,
    calibrated_elsewhere,
    digest_files,
    manifest_digest,
    read_manifest,
    verify,
)
from model_store.networks.architecture import Architecture, DecoderArchitecture
from model_store.networks.catalogue import decoder_of_config
from model_store.registry.references import fetch, is_reference

SHIPPED = Path(__file__).parent / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A folder with weights, and the manifest that describes their use."""

    name: str
    folder: Path
    manifest: Manifest

    @cached_property
    def family(self) -> Family:
        """The family of the manifest around the folder's tokenizer.

        Raises `CheckpointUnusable` where they do not fit.
        """
        return self.open_family()

    def open_family(self, *, max_tokens: int | None = None) -> Family:
        """As `family`, with a lower limit of tokens of a pair, for training on shorter pairs."""
        try:
            tokenizer = LiteralTokenizer.load(self.folder)
            refuse_other_tokens(self.name, self.folder, tokenizer)
        except FileNotFoundError:
            raise CheckpointUnusable(f"{self.name}: {missing_parts(self.folder)}.") from None
        except (TokenizerMismatch, ValueError) as error:
            raise CheckpointUnusable(f"{self.name}: {error}.") from None

        kind = family_of(self.manifest)
        network = network_facts(self.name, self.folder)
        return kind.open(self.manifest, self.folder, tokenizer, network, max_tokens=max_tokens)

    def with_template(self, template: str | None) -> Checkpoint:
        """The same checkpoint with another of its family's templates; None: its own.

        `family` refuses a template that the family does not have.
        """
        if template is None or template == self.manifest.template:
            return self
        return replace(self, manifest=self.manifest.model_copy(update={"template": template}))

    @property
    def architecture(self) -> Architecture:
        """The adapter of the checkpoint's network."""
        return architecture_of(self.name, self.folder)

    @property
    def decoder(self) -> DecoderArchitecture:
        """The adapter of a network that is a causal decoder; raises `CheckpointUnusable`."""
        return decoder_of_config(self.name, read_config(self.name, self.folder))

    @property
    def readout(self) -> ReadOut:
        """The read-out that the manifest names, or the family's default."""
        return self.family.readout

    @property
    def transform(self) -> Transform:
        """The transform of a raw score to a relevance score; raises `CheckpointUnusable` for one
        that is not known."""
        try:
            return transform_of(self.manifest.transform)
        except ValueError:
            raise CheckpointUnusable(
                f"{self.name}: the transform {self.manifest.transform!r} is not known; it is one of"
                " the form sigmoid, sigmoid(x - 2.65), sigmoid(x / 5), identity or x / 10."
            ) from None

    @property
    def digest(self) -> str:
        """The digest of all that decides a score but the engine: files, prompt, limits."""
        return self.manifest.scores_digest(self.family.fingerprint)

    @property
    def calibration(self) -> Calibration | None:
        """The manifest's calibration; raises `CheckpointUnusable` for that of another model, such
        as one with another prompt."""
        calibration = self.manifest.calibration
        if calibration is not None and calibration.model != self.digest:
            raise CheckpointUnusable(calibrated_elsewhere(self.name))
        return calibration


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter (peft's folder) that is served under its own name, on top of a checkpoint."""

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
    family: str | None = None,
) -> Checkpoint:
    """The checkpoint of a name.

    A name is one of those that ship; a folder's path; `NAME@production` or `NAME@sha256:...` in
    `registry`, a folder or URL; the same with the registry's URL before it; or a hub id such as
    `vec-ai/lychee-rerank-mm`, which needs `revision`, the 40 hex digits of a commit. With `weights`
    off the folder may lack them, and a hub's are not downloaded: for descriptions of a model, and
    for measurements with random weights. `family` is that of a folder without a manifest, where its
    files do not tell. Raises `CheckpointUnusable` with one sentence.
    """
    expect_named(name, revision)
    if family:
        family_named(name, family)

    if name in shipped():
        return _local(name, SHIPPED / name, family=family)
    if Path(name).is_dir():
        return _local(Path(name).resolve().name, Path(name), weights=weights, family=family)
    if is_reference(name):
        folder, manifest = fetch(name, registry, cache)
        _refuse_other_family(manifest, family)
        return _published(folder, _with_weights(manifest))
    assert revision
    folder = download(name, revision, cache, weights=False)
    if weights:
        if not (folder / MANIFEST).exists():
            # not first many gigabytes, and then a refusal
            family_of_folder(name, folder, family)
        folder = download(name, revision, cache)
    return replace(_local(name, folder, weights=weights, family=family), name=name)


def expect_named(name: str, revision: str | None = None) -> None:
    """Raise `CheckpointUnusable` for a name that `resolve` could not find, without any request."""
    if name in shipped() or Path(name).is_dir() or is_reference(name):
        return

    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
        raise CheckpointUnusable(
            f"There is no model {name!r}: it is no folder, no hub id, and none of"
            f" {', '.join(shipped())}."
        )
    if revision is None:
        raise CheckpointUnusable(
            f"There is no folder {name} (a hub model needs RERANK_MODEL_REVISION, a commit's 40 hex"
            " digits)."
        )
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise CheckpointUnusable(
            f"{name} is a hub model: RERANK_MODEL_REVISION must be a commit (40 hex digits)."
        )


def resolve_adapter(
    name: str,
    folder: Path,
    *,
    cache: Path | None = None,
    registry: str | None = None,
    model: Checkpoint | None = None,
) -> Adapter:
    """The adapter in a folder, or in a registry as for `resolve`.

    It is verified where it has a manifest. Raises `CheckpointUnusable` with one sentence, also
    where the manifest names another base than `model`, and where `model` has no place for one of
    the adapter's tensors or options.
    """
    if not folder.is_dir() and is_reference(str(folder)):
        folder, _ = fetch(str(folder), registry, cache)

    manifest = read_manifest(folder)
    if manifest is not None:
        verify(folder, manifest)
        if model and manifest.base and manifest.base != model.digest:
            raise CheckpointUnusable(
                f"{name} was trained on another checkpoint than {model.name} (its manifest's base"
                " differs)."
            )

    adapter = read_adapter(folder)
    if model:
        refuse_unless_read_alike(adapter, name, model.readout, model.manifest.template)
        refuse_unless_fits(adapter, name, model.folder)

    files = digest_files(folder, [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    described = {file: digest.sha256 for file, digest in files.items()}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Adapter(name, folder, adapter.rank, digest)


def version_of(served: Checkpoint | Adapter) -> str:
    """The version that a registry lists it under; empty where it has no manifest."""
    if not (served.folder / MANIFEST).exists():
        return ""
    return f"sha256:{manifest_digest(served.folder)}"


def shipped() -> list[str]:
    """The names of the checkpoints that ship."""
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def _local(
    name: str, folder: Path, *, weights: bool = True, family: str | None = None
) -> Checkpoint:
    manifest = read_manifest(folder)
    if manifest is None:
        described = describe_folder(name, folder, weights=weights, family=family)
        return Checkpoint(name, folder, described)

    _refuse_other_family(manifest, family)
    verify(folder, _with_weights(manifest), weights=weights)
    return _published(folder, manifest, weights=weights)


def _refuse_other_family(manifest: Manifest, family: str | None) -> None:
    if family and family != manifest.family:
        raise CheckpointUnusable(
            f"{manifest.name}: its manifest says that its family is {manifest.family}, not"
            f" {family}."
        )


def _published(folder: Path, manifest: Manifest, *, weights: bool = True) -> Checkpoint:
    """A verified folder as a checkpoint; raises `CheckpointUnusable` where it cannot be loaded."""
    refuse_unloadable(manifest.name, folder, manifest, weights=weights)

    refuse_other_network(manifest.name, folder, family_of(manifest))
    checkpoint = Checkpoint(manifest.name, folder, manifest)
    _ = checkpoint.calibration  # refused here, where it is another model's
    return checkpoint


def _with_weights(manifest: Manifest) -> Manifest:
    if manifest.kind == "cascade":
        raise CheckpointUnusable(
            f"{manifest.name} is a cascade: serve its stages, and name its folder to the gateway in"
            " RERANK_CASCADES."
        )
    if manifest.base:
        raise CheckpointUnusable(
            f"{manifest.name} is an adapter: serve its base, and name it in RERANK_ADAPTERS."
        )
    return manifest
