"""The family of folders that sentence-transformers saved as a CrossEncoder with a chat template.

Recognised by `modules.json` alone, so that such a folder needs no setting. Depends on files, the
template's forms and facts of the network. Invariant: a folder that opens renders its usual pairs as
sentence-transformers does; any other is refused with one sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_store.families.chat_template.joints import prepends_once
from model_store.families.chat_template.pair_forms import PairForms
from model_store.families.chat_template.template import (
    ChatTemplate,
    read_template,
)
from model_store.families.family import ImageRules
from model_store.families.original_tokenizer import refuse_other_texts
from model_store.families.readout import LabelPair, ReadOut, ScoreHead, SingleLabel
from model_store.families.recognition import (
    Description,
    FolderFacts,
    NetworkFacts,
    Rank,
    Recognition,
)
from model_store.families.sentence_transformers.abilities import Abilities
from model_store.families.sentence_transformers.family import NAME, CrossEncoderFamily
from model_store.families.sentence_transformers.modules import (
    MODULES,
    CrossEncoderFiles,
    read_modules,
)
from model_store.families.sentence_transformers.settings import (
    CHAINS,
    HEAD_CHAIN,
    MAX_TOKENS,
    ChatSettings,
    chat_settings,
    reads_messages,
)
from model_store.families.tokens import LiteralTokenizer
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable, Manifest, PixelBounds

_TEMPLATE = "chat template"
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 1280 * 28 * 28
"""Bounds of transformers' processor of images of Qwen networks, where a folder states none."""
_IMAGE_SHARE = 0.75
"""The largest share of a pair's tokens that one image may have; larger images are resized."""


class SentenceTransformers:
    """The family before it is opened for a checkpoint."""

    name = NAME
    architectures: Sequence[str] = ()
    readouts: Sequence[ReadOut] = ()
    default_max_tokens = MAX_TOKENS
    published: Mapping[str, Mapping[str, Any]] = {}

    def recognise(self, facts: FolderFacts) -> Recognition | None:
        """Recognised by the chain of modules."""
        files = read_modules(facts.name, facts.folder)
        if files is None or files.chain not in CHAINS:
            return None
        if files.chain == HEAD_CHAIN and not reads_messages(files):
            return None
        return Recognition(
            Rank.DESCRIBED, f"its {MODULES} lists {' and '.join(files.chain)}, with messages"
        )

    def describe(self, facts: FolderFacts) -> Description:
        """The folder's own prompt, limit and activation."""
        files = _files(facts.name, facts.folder)
        settings = chat_settings(files, facts.network)
        stated = {"template", "read_out", "transform", "default_instruction"}
        if settings.max_tokens < MAX_TOKENS:
            stated.add("max_tokens")
        pixels, largest = None, None
        if facts.network.image_token and settings.reads_images:
            pixels = PixelBounds(min_pixels=_MIN_PIXELS, max_pixels=_MAX_PIXELS)
            cells = int(settings.max_tokens * _IMAGE_SHARE)
            largest = cells * facts.network.image_cell**2
        return Description(
            template=_TEMPLATE,
            default_instruction=files.default_prompt,
            max_tokens=settings.max_tokens,
            pixels=pixels,
            most_pixels=largest,
            transform=files.transform(facts.config),
            stated=frozenset(stated),
        )

    def open(
        self,
        manifest: Manifest,
        folder: Path,
        tokenizer: LiteralTokenizer,
        network: NetworkFacts,
        *,
        max_tokens: int | None = None,
    ) -> CrossEncoderFamily:
        """The family of a checkpoint; raises `CheckpointUnusable`."""
        name = manifest.name
        files = _files(name, folder)
        settings = chat_settings(files, network)
        template = read_template(
            name,
            folder,
            message_format=settings.message_format,
            model_type=str((read_json(name, folder, "config.json") or {}).get("model_type")),
            variables=dict(settings.variables),
        )
        images = None
        if network.image_token and settings.reads_images:
            images = _image_rules(manifest, tokenizer, network)
        readout = _readout(manifest, tokenizer, settings)
        _refuse_other_pieces(name, tokenizer, network)
        refuse_other_texts(name, folder, tokenizer)

        forms = PairForms(template, tokenizer, images.token_id if images else None)
        abilities = Abilities(name, template, forms, manifest.default_instruction)
        sides = abilities.sides(images=images is not None)
        if not settings.label_ids:
            abilities.refuse_last_token(_padding(name, folder))
        return CrossEncoderFamily(
            tokenizer,
            forms,
            sides,
            readout=readout,
            label_ids=settings.label_ids,
            images=images,
            max_tokens=manifest.max_tokens if max_tokens is None else max_tokens,
            default_instruction=manifest.default_instruction,
            fingerprint=_fingerprint(template),
        )


def _padding(name: str, folder: Path) -> object:
    """The padding token by which a score head finds the end of a prompt."""
    config = read_json(name, folder, "config.json") or {}
    return config.get("pad_token_id")


def _files(name: str, folder: Path) -> CrossEncoderFiles:
    files = read_modules(name, folder)
    if files is None or files.chain not in CHAINS:
        found = "there is none" if files is None else f"it lists {', '.join(files.chain)}"
        raise CheckpointUnusable(
            f"{name}: the family {NAME} needs a {MODULES} that lists"
            f" {' or '.join(', '.join(chain) for chain in CHAINS)}, and {found}."
        )
    return files


def _readout(manifest: Manifest, tokenizer: LiteralTokenizer, settings: ChatSettings) -> ReadOut:
    """The read-out of a folder, with its labels by the names that the vocabulary has for them."""
    labels: list[str] = []
    for number in settings.label_ids:
        label = tokenizer.token(number)
        if label is None:
            raise CheckpointUnusable(
                f"{manifest.name}: the label {number} of LogitScore has no name of its own in the"
                " tokenizer's vocabulary, by which vLLM could find it."
            )
        labels.append(label)

    readout: ReadOut
    match labels:
        case [positive, negative]:
            readout = LabelPair(positive, negative)
        case [label]:
            readout = SingleLabel(label)
        case _:
            readout = ScoreHead()
    if manifest.read_out not in ("", readout.name):
        raise CheckpointUnusable(
            f"{manifest.name}: its manifest states the read-out {manifest.read_out!r}, and its"
            f" modules read {readout.name!r}."
        )
    return readout


def _image_rules(
    manifest: Manifest, tokenizer: LiteralTokenizer, network: NetworkFacts
) -> ImageRules:
    if manifest.pixels is None:
        raise CheckpointUnusable(
            f"{manifest.name}: its manifest states no pixel bounds, and its network reads images."
        )
    bounds, token_id = manifest.pixels, tokenizer.control(network.image_token)
    return ImageRules(network.image_cell, bounds.min_pixels, bounds.max_pixels, token_id)


def _refuse_other_pieces(name: str, tokenizer: LiteralTokenizer, network: NetworkFacts) -> None:
    """Raise `CheckpointUnusable` for a tokenizer that adds to a prompt what is not added here.

    Texts are encoded apart here. transformers' processors of images, but not its tokenizers, add
    the special tokens of `post_processor` to a rendered template.
    """
    if network.image_token and "SpecialToken" in json.dumps(tokenizer.post_processor):
        raise CheckpointUnusable(
            f"{name}: post_processor of tokenizer.json adds special tokens to a prompt, which is"
            " not done here."
        )
    if prepends_once(tokenizer):
        raise CheckpointUnusable(
            f"{name}: tokenizer.json prepends a blank to the first text of a prompt alone, which is"
            " not done here."
        )


def _fingerprint(template: ChatTemplate) -> str:
    fixed = (template.source, template.structured, sorted(template.variables.items()))
    return hashlib.sha256(repr(fixed).encode()).hexdigest()
