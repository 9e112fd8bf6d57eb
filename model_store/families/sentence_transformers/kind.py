"""The family of folders that sentence-transformers saved as a CrossEncoder with a chat template.

Recognised by `modules.json` alone, so that such a folder needs no setting. Depends on files, the
template's forms and facts of the network. Invariant: a folder that opens renders its usual pairs as
sentence-transformers does; any other is refused with one sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model_store.families.chat_template.joints import prepends_once
from model_store.families.chat_template.layouts import Kind, Layout, Side, usual
from model_store.families.chat_template.pair_form import PairForm
from model_store.families.chat_template.pair_forms import PairForms
from model_store.families.chat_template.probes import Unfaithful, Unreadable
from model_store.families.chat_template.template import (
    ChatTemplate,
    TemplateFailed,
    read_template,
)
from model_store.families.family import ImageRules, SideRules
from model_store.families.readout import LabelPair, ReadOut, SingleLabel
from model_store.families.recognition import (
    Description,
    FolderFacts,
    NetworkFacts,
    Rank,
    Recognition,
)
from model_store.families.sentence_transformers.family import NAME, CrossEncoderFamily, Sides
from model_store.families.sentence_transformers.modules import (
    MODULES,
    CrossEncoderFiles,
    read_modules,
)
from model_store.families.sentence_transformers.settings import (
    LOGIT_CHAIN,
    MAX_TOKENS,
    LogitSettings,
    logit_settings,
)
from model_store.families.tokens import LiteralTokenizer
from model_store.json_files import read_json
from model_store.manifest import CheckpointUnusable, Manifest, PixelBounds

_TEMPLATE = "chat template"
_MIN_PIXELS, _MAX_PIXELS = 56 * 56, 1280 * 28 * 28
"""Bounds of transformers' processor of images of Qwen networks, where a folder states none."""
_IMAGE_SHARE = 0.75
"""The largest share of a pair's tokens that one image may have; larger images are resized."""
_PARTS: tuple[tuple[Kind, ...], ...] = (("text",), ("image",))
_MANY_IMAGES = 3


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
        if files is None or files.chain != LOGIT_CHAIN:
            return None
        return Recognition(Rank.DESCRIBED, f"its {MODULES} lists {' and '.join(LOGIT_CHAIN)}")

    def describe(self, facts: FolderFacts) -> Description:
        """The folder's own prompt, limit and activation."""
        files = _files(facts.name, facts.folder)
        settings = logit_settings(files, facts.network)
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
        settings = logit_settings(files, network)
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
        readout, label_ids = _readout(manifest, tokenizer, settings)
        _refuse_other_pieces(name, tokenizer, network)

        forms = PairForms(template, tokenizer, images.token_id if images else None)
        sides = _Abilities(name, template, forms, manifest.default_instruction).sides(
            images=images is not None
        )
        return CrossEncoderFamily(
            tokenizer,
            forms,
            sides,
            readout=readout,
            label_ids=label_ids,
            images=images,
            max_tokens=manifest.max_tokens if max_tokens is None else max_tokens,
            default_instruction=manifest.default_instruction,
            fingerprint=_fingerprint(template),
        )


class _Abilities:
    """What a template shows, found by its forms; raises `CheckpointUnusable`."""

    def __init__(self, name: str, template: ChatTemplate, forms: PairForms, prompt: str) -> None:
        self._name, self._template, self._forms = name, template, forms
        self._instruction: tuple[Kind, ...] = ("text",) if prompt else ()

    def sides(self, *, images: bool) -> Sides:
        """The abilities of both sides. A folder without `images` shows texts."""
        try:
            self._forms.learn(self._layouts(images=images))
        except TemplateFailed as failure:
            raise self._refusal(str(failure)) from None

        reference, form = self._reference(_PARTS if images else _PARTS[:1])
        return Sides(
            query=self._rules("query", reference, images=images),
            document=self._rules("document", reference, images=images),
            takes_instruction=self._takes_instruction(reference),
            begins_with=form.begins_with,
        )

    def _layouts(self, *, images: bool) -> Iterator[Layout]:
        """Layouts that are rendered before the first call."""
        yield from usual(images=images)
        if images:
            image: Kind = "image"
            many = (image,) * _MANY_IMAGES
            for other in _PARTS:
                yield Layout(self._instruction, many, other)
                yield Layout(self._instruction, other, many)

    def _reference(self, kinds: Sequence[tuple[Kind, ...]]) -> tuple[Layout, PairForm]:
        """The first layout of one part on each side that the template shows."""
        reasons: list[str] = []
        for query in kinds:
            for document in kinds:
                layout = Layout(self._instruction, query, document)
                form = self._form(layout, reasons)
                if form:
                    return layout, form
        raise self._refusal(reasons[0])

    def _takes_instruction(self, reference: Layout) -> bool:
        layout = Layout(("text",), reference.query, reference.document)
        form = self._form(layout, [])
        return form is not None and ("instruction", 0) in form.places

    def _rules(self, side: Side, reference: Layout, *, images: bool) -> SideRules:
        """The parts that the template shows on one side, beside the other side's reference."""

        def shows(*kinds: Kind) -> bool:
            parts = {"query": reference.query, "document": reference.document, side: kinds}
            layout = Layout(self._instruction, parts["query"], parts["document"])
            return self._form(layout, []) is not None

        texts = shows("text")
        if not images:
            return SideRules(texts=texts, max_images=0, mixed=False)

        count = 0
        shown: list[Kind] = ["image"]
        while count < _MANY_IMAGES and shows(*shown):
            count += 1
            shown.append("image")
        mixed = shows("text", "image") or shows("image", "text")
        return SideRules(texts, None if count == _MANY_IMAGES else count, mixed)

    def _form(self, layout: Layout, reasons: list[str]) -> PairForm | None:
        """The form of a layout, or None with a reason; a template that reads texts is refused."""
        try:
            return self._forms.form(layout)
        except Unreadable as reason:
            reasons.append(str(reason))
            return None
        except Unfaithful as reason:
            raise self._refusal(str(reason)) from None

    def _refusal(self, clause: str) -> CheckpointUnusable:
        return CheckpointUnusable(
            f"{self._name}: {self._template.file} cannot be rendered: {clause}."
        )


def _files(name: str, folder: Path) -> CrossEncoderFiles:
    files = read_modules(name, folder)
    if files is None or files.chain != LOGIT_CHAIN:
        found = "there is none" if files is None else f"it lists {', '.join(files.chain)}"
        raise CheckpointUnusable(
            f"{name}: the family {NAME} needs a {MODULES} that lists {' and '.join(LOGIT_CHAIN)},"
            f" and {found}."
        )
    return files


def _readout(
    manifest: Manifest, tokenizer: LiteralTokenizer, settings: LogitSettings
) -> tuple[ReadOut, tuple[int, ...]]:
    """The read-out of a folder's labels, by the names that the vocabulary has for them."""
    ids = [settings.true_id] if settings.false_id is None else [settings.true_id, settings.false_id]
    labels: list[str] = []
    for number in ids:
        label = tokenizer.token(number)
        if label is None:
            raise CheckpointUnusable(
                f"{manifest.name}: the label {number} of LogitScore has no name of its own in the"
                " tokenizer's vocabulary, by which vLLM could find it."
            )
        labels.append(label)

    readout: ReadOut = LabelPair(*labels) if len(labels) > 1 else SingleLabel(labels[0])
    if manifest.read_out not in ("", readout.name):
        raise CheckpointUnusable(
            f"{manifest.name}: its manifest states the read-out {manifest.read_out!r}, and its"
            f" LogitScore reads {readout.name!r}."
        )
    return readout, tuple(ids)


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
