"""Rendering of one question's documents by the forms of a chat template.

Documents whose prompts have the question's half in common are rendered together, so that they share
it. Depends on forms and a budget of tokens, not on a template. Invariant: a document's prompt does
not depend on the other documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from model_store.families.chat_template.layouts import Layout, Side, side_kinds
from model_store.families.chat_template.pair_form import Elements, PairForm, row_of
from model_store.families.chat_template.pair_forms import PairForms
from model_store.families.chat_template.probes import Unfaithful, Unreadable
from model_store.families.chat_template.template import TemplateFailed
from model_store.families.family import CacheableSide
from model_store.families.prompt import (
    Item,
    NotRendered,
    PairTooLong,
    PairUnreadable,
    Prompt,
    Segment,
)
from model_store.families.renderer import Question, Renderer
from model_store.families.rows import Row, RowEncoder

_Items = Mapping[Side, Item]
_EMPTY: Item = ("",)


class PairRendering:
    """Renders the documents of one question. It serves one thread at a time.

    No message is rendered for an instruction without parts.
    """

    def __init__(
        self,
        forms: PairForms,
        encoder: RowEncoder,
        max_tokens: int,
        instruction: Item,
        query: Item,
        *,
        truncate: bool,
    ) -> None:
        self._forms, self._encoder, self._max_tokens = forms, encoder, max_tokens
        self._instruction, self._query = instruction, query or _EMPTY
        self._truncate = truncate
        self._renderers: dict[tuple[CacheableSide, Elements], Renderer] = {}

    def prompts(self, documents: Sequence[Item]) -> Sequence[Prompt | NotRendered]:
        """One prompt or refusal for each document, in order."""
        found: list[Prompt | NotRendered] = [PairUnreadable()] * len(documents)
        whole: dict[int, Row] = {}
        sharing: dict[Renderer, list[int]] = {}
        pairs = [self._items(document or _EMPTY) for document in documents]
        self._learn(map(_layout, pairs))
        self._learn(map(self._layout_of, pairs))
        for index, items in enumerate(pairs):
            try:
                form = self._forms.form(self._layout_of(items))
            except (Unreadable, Unfaithful):
                continue
            if form.begins_with == "none":
                whole[index] = row_of(form.elements, items, "document")
            else:
                sharing.setdefault(self._renderer(form), []).append(index)

        for renderer, indexes in sharing.items():
            prompts = renderer.prompts([documents[index] or _EMPTY for index in indexes])
            for index, prompt in zip(indexes, prompts, strict=True):
                found[index] = prompt
        for index, segment in zip(whole, self._encoder.segments(list(whole.values())), strict=True):
            found[index] = self._whole(whole[index], segment)
        return found

    def _items(self, document: Item) -> _Items:
        return {"instruction": self._instruction, "query": self._query, "document": document}

    def _learn(self, layouts: Iterable[Layout]) -> None:
        """Learn the forms of layouts at once; of a template without end some stay unknown."""
        with suppress(TemplateFailed):
            self._forms.learn(layouts)

    def _layout_of(self, items: _Items) -> Layout:
        """The layout of a pair, in which a text of blanks may count as an empty one."""
        layout = _layout(items)
        try:
            places = self._forms.form(layout).places
        except (Unreadable, Unfaithful):
            return layout

        for (side, part), place in places.items():
            text = items[side][part]
            if place.blank == "empty" and isinstance(text, str) and not text.strip():
                layout = layout.with_empty((side, part))
        return layout

    def _renderer(self, form: PairForm) -> Renderer:
        """The renderer of all documents whose prompt has the question's half of a form."""
        key = form.begins_with, form.question
        if key in self._renderers:
            return self._renderers[key]

        def document_row(document: Item) -> Row:
            # without parts it is the shortest document of any layout, not an empty text
            items = self._items(document)
            own = self._forms.form(self._layout_of(items)) if document else form
            return row_of(own.document, items, "document")

        without_query = {**self._items(()), "query": ()}
        question = Question(
            row=row_of(form.question, self._items(()), "query"),
            without_query=row_of(form.question, without_query, None),
            document_row=document_row,
            document_first=form.begins_with == "document",
        )
        self._renderers[key] = Renderer(
            self._encoder, question, self._max_tokens, truncate=self._truncate
        )
        return self._renderers[key]

    def _whole(self, row: Row, segment: Segment | None) -> Prompt | NotRendered:
        """A prompt that shares nothing, whole or with less text of its document."""
        if segment and len(segment.ids) <= self._max_tokens:
            return Prompt(Segment(()), segment, truncated=False)

        cut = self._encoder.cut(row, self._max_tokens) if self._truncate else None
        if cut and len(cut.ids) <= self._max_tokens:
            return Prompt(Segment(()), cut, truncated=True)
        return PairTooLong(self._max_tokens, "pair")


def _layout(items: _Items) -> Layout:
    """The kinds of a pair's parts."""
    return Layout(
        side_kinds(items["instruction"]) if items["instruction"] else (),
        side_kinds(items["query"]),
        side_kinds(items["document"]),
    )
