"""A folder without a manifest, as a model's authors publish it, and the manifest that describes it.

Depends on the layouts that hubs have and on headers of files, and loads no network. Invariant: both
engines load every folder that is described here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_store.families.catalogue import FAMILIES, family_named, recognise
from model_store.families.family import FamilyKind
from model_store.families.recognition import FolderFacts, NetworkFacts, Rank
from model_store.families.tokens import LiteralTokenizer
from model_store.folders.covered_files import (
    files_read,
    refuse_adapter,
    refuse_other_modules,
    refuse_pointers,
    refuse_unlisted,
)
from model_store.folders.image_processor import pixel_bounds
from model_store.folders.refused_models import (
    refuse_named_embedding,
    refuse_other_architectures,
    refuse_other_rerankers,
)
from model_store.folders.weights import check_weights, quantization_of, tensor_shapes
from model_store.golden import GOLDEN
from model_store.json_files import read_json
from model_store.manifest import (
    MANIFEST,
    CheckpointUnusable,
    Manifest,
    digest_files,
    read_manifest,
)
from model_store.networks.architecture import Architecture
from model_store.networks.catalogue import WHOLE_PAIRS, of_config

CONFIG = "config.json"
TORCH_REFUSES = (
    "which the torch engine does not run: set RERANK_ENGINE=vllm, or serve the checkpoint that they"
    " were made from"
)
"""The consequence of quantised weights for the torch engine."""


def describe_folder(
    name: str, folder: Path, *, weights: bool = True, family: str | None = None
) -> Manifest:
    """The manifest that describes a folder without one.

    `family` names its family where its files do not tell. Raises `CheckpointUnusable` where the
    folder cannot be served.
    """
    if (folder / GOLDEN).exists():
        raise CheckpointUnusable(
            f"{name}: it has {GOLDEN} but no {MANIFEST}, so it was not published to the end."
        )
    refuse_adapter(name, folder)
    kind, facts = family_of_folder(name, folder, family)
    refuse_unloadable(name, folder, weights=weights)

    described, tower = kind.describe(facts), of_config(name, facts.config).vision
    bounds = described.pixels
    if bounds is not None and tower is not None:
        bounds = pixel_bounds(
            name, folder, tower.processor, bounds, most_pixels=described.most_pixels
        )

    try:
        files = digest_files(folder, files_read(folder))
    except OSError as error:
        raise CheckpointUnusable(
            f"{name}: a file of the folder cannot be read ({error.strerror})."
        ) from None

    return Manifest(
        name=name,
        family=kind.name,
        template=described.template,
        default_instruction=described.default_instruction,
        max_tokens=described.max_tokens,
        pixels=bounds,
        files=files,
        read_out=described.read_out,
        transform=described.transform,
    )


def family_of_folder(
    name: str, folder: Path, family: str | None = None
) -> tuple[FamilyKind, FolderFacts]:
    """The family of a folder without a manifest, and what it was recognised by.

    Reads no weights. Raises `CheckpointUnusable` where no family can serve such a folder.
    """
    if not family:
        refuse_other_rerankers(name)
    facts = folder_facts(name, folder)
    if family:
        kind = family_named(name, family)
    else:
        kind, recognition = recognise(facts)
        if recognition.rank is Rank.ASSUMED:
            refuse_named_embedding(name)
    refuse_other_network(name, folder, kind)
    return kind, facts


def is_assumed(described: Manifest, folder: Path) -> bool:
    """True where a folder has no manifest, and its network alone made it of the `described` family.

    A chat model of the same network would be described alike.
    """
    if read_manifest(folder) is not None:
        return False

    facts = folder_facts(described.name, folder)
    recognition = family_named(described.name, described.family).recognise(facts)
    return recognition is not None and recognition.rank is Rank.ASSUMED


def refuse_unloadable(
    name: str, folder: Path, listed: Manifest | None = None, *, weights: bool = True
) -> None:
    """Raise `CheckpointUnusable` for a folder that an engine cannot load or would load differently.

    `listed` is the folder's manifest, where it has one. Without `weights` the folder may lack them.
    """
    refuse_adapter(name, folder)
    config = read_config(name, folder)

    if listed is not None:
        refuse_unlisted(name, folder, listed.files)
    refuse_pointers(name, folder, files_read(folder))
    refuse_other_modules(name, folder)
    if weights:
        check_weights(name, folder, config)


def refuse_quantised(name: str, folder: Path, consequence: str) -> None:
    """Raise `CheckpointUnusable` for quantised weights, with the `consequence` for the caller.

    transformers would need another library for them, or would unpack them silently to another
    dtype.
    """
    method = quantization_of(folder, read_config(name, folder))
    if method:
        # a method is named by config.json, or a file of its own says that there is one
        source = "" if method.startswith("as ") else f", by quantization_config of {CONFIG}"
        raise CheckpointUnusable(
            f"{name}: its weights are quantised ({method}{source}), {consequence}."
        )


def refuse_other_tokens(name: str, folder: Path, tokenizer: LiteralTokenizer) -> None:
    """Raise `CheckpointUnusable` where a tokenizer does not fit the network of the same folder.

    Its ids must be rows of the embeddings. vLLM finds images by the id that `config.json` states,
    and this service by the tokenizer's, so the two must be equal.
    """
    config = read_config(name, folder)
    architecture = of_config(name, config)
    vocabulary = architecture.tensor_shapes(config)[architecture.embeddings][0]
    if tokenizer.size > vocabulary:
        raise CheckpointUnusable(
            f"{name}: its tokenizer has {tokenizer.size} tokens, and the network {vocabulary}."
        )

    for field, (default, token) in architecture.stated_tokens.items():
        stated, token_id = config.get(field, default), tokenizer.control(token)
        if stated != token_id:
            raise CheckpointUnusable(
                f"{name}: {field} of {CONFIG} is {stated!r:.40}, and the tokenizer has {token} at"
                f" {token_id}."
            )


def refuse_other_network(name: str, folder: Path, kind: FamilyKind) -> None:
    """Raise `CheckpointUnusable` for a network that a family does not run on."""
    stored = architecture_of(name, folder).name
    if kind.architectures and stored not in kind.architectures:
        raise CheckpointUnusable(
            f"{name}: the family {kind.name} runs on {' or '.join(kind.architectures)}, and"
            f" {CONFIG} describes {stored}."
        )


def folder_facts(name: str, folder: Path) -> FolderFacts:
    """A folder as families recognise it; raises `CheckpointUnusable`."""
    return FolderFacts(name, folder, read_config(name, folder), network_facts(name, folder))


def network_facts(name: str, folder: Path) -> NetworkFacts:
    """The network of a folder as far as a prompt depends on it; raises `CheckpointUnusable`."""
    config = read_config(name, folder)
    architecture = of_config(name, config)
    vocabulary = tensor_shapes(name, config)[architecture.embeddings][0]
    tower = architecture.vision
    if pairs := WHOLE_PAIRS.get(architecture.name):
        types, positions = pairs.token_types(config), pairs.positions(config)
        return NetworkFacts(
            architecture.name, vocabulary, causal=False, token_types=types, positions=positions
        )
    if tower is None:
        return NetworkFacts(architecture.name, vocabulary)

    _, image_token = architecture.stated_tokens["image_token_id"]
    cell = int(tower.processor["patch_size"]) * int(tower.processor["merge_size"])
    return NetworkFacts(architecture.name, vocabulary, image_token, cell)


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """`config.json` of a network that can be served; raises `CheckpointUnusable`."""
    config = read_json(name, folder, CONFIG)
    if config is None:
        raise CheckpointUnusable(f"{name}: there is no {CONFIG}.")

    refuse_other_architectures(name, config)
    architecture = of_config(name, config)
    limits = [
        kind.default_max_tokens
        for kind in FAMILIES.values()
        if architecture.name in kind.architectures or not kind.architectures
    ]
    longest = max(limits, default=0)
    architecture.refuse_other_arithmetic(name, config, longest)
    return config


def architecture_of(name: str, folder: Path) -> Architecture:
    """The architecture of a folder's network; raises `CheckpointUnusable`."""
    return of_config(name, read_config(name, folder))
