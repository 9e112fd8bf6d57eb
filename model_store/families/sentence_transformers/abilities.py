"""The abilities of a chat template: the parts that it shows of each side, and the instruction.

Depends on the template's forms, not on files. Invariant: a template whose usual prompts depend on
the texts themselves is refused, with one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model_store.families.chat_template.layouts import Kind, Layout, Side, usual
from model_store.families.chat_template.pair_form import PairForm
from model_store.families.chat_template.pair_forms import PairForms
from model_store.families.chat_template.probes import Unfaithful, Unreadable
from model_store.families.chat_template.template import ChatTemplate, TemplateFailed
from model_store.families.family import SideRules
from model_store.families.forms import Control
from model_store.families.sentence_transformers.family import Sides
from model_store.manifest import CheckpointUnusable

_PARTS: tuple[tuple[Kind, ...], ...] = (("text",), ("image",))
_MANY_IMAGES = 3
"""A template that shows so many images of a side is taken to show any number."""


class Abilities:
    """Finds the abilities of a template by its forms; raises `CheckpointUnusable`."""

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

    def refuse_last_token(self, padding: object) -> None:
        """Refuse a prompt that ends in the padding token, before which a score head would read."""
        _, form = self._reference(_PARTS)
        if form.elements[-1] == Control(padding if isinstance(padding, int) else -1):
            raise CheckpointUnusable(
                f"{self._name}: {self._template.file} ends in the padding token, which score heads"
                " of transformers leave out."
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
