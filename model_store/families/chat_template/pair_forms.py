"""The forms of prompts by layout, learnt from a chat template as pairs have them.

Depends on a template and a tokenizer, not on texts of users. Invariant: a form stands for all texts
of its layout: a template whose prompt depends on the texts themselves has none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from threading import Lock

from model_store.families.chat_template.controls import ControlFinder
from model_store.families.chat_template.joints import ends_piece
from model_store.families.chat_template.layouts import Layout, TextPart
from model_store.families.chat_template.pair_form import (
    Element,
    ImagePlace,
    PairForm,
    Place,
    Trim,
    halved,
)
from model_store.families.chat_template.probes import (
    MARK,
    Probes,
    Unfaithful,
    Unreadable,
    part_of,
    places_of,
)
from model_store.families.chat_template.template import (
    ChatTemplate,
    Conversation,
    Rendered,
    TemplateFailed,
)
from model_store.families.forms import Control
from model_store.families.tokens import LiteralTokenizer

MAX_FORMS = 4096
"""Layouts whose forms are kept, those that were used last."""
MAX_PARTS = 32
"""Parts of a pair, since each text has prompts of its own to learn from."""
_CONVERSATIONS_AT_ONCE = 1024
_JOINTS = 256
"""Places in fixed text whose answer is kept."""
_Found = PairForm | Unreadable | Unfaithful


class PairForms:
    """The forms of one template's prompts, by layout. Any thread may ask for them."""

    def __init__(
        self, template: ChatTemplate, tokenizer: LiteralTokenizer, image_token_id: int | None
    ) -> None:
        self._template, self._tokenizer = template, tokenizer
        self._image_token_id = image_token_id
        self._controls = ControlFinder(tokenizer)
        self._ends_piece = lru_cache(_JOINTS)(partial(ends_piece, tokenizer))
        self._known: OrderedDict[Layout, _Found] = OrderedDict()
        self._lock = Lock()

    def learn(self, layouts: Iterable[Layout]) -> None:
        """Render the layouts that are not known; raises `TemplateFailed` for a template that
        does not end, and then some stay unknown."""
        asked = dict.fromkeys(layouts)
        with self._lock:
            missing = [layout for layout in asked if layout not in self._known]

        batch: list[Probes] = []
        size = 0
        for layout in missing:
            if layout.parts > MAX_PARTS:
                self._keep(layout, Unreadable(f"a pair has more than {MAX_PARTS} parts"))
                continue
            probes = Probes.of(layout, structured=self._template.structured)
            batch.append(probes)
            size += len(probes.conversations)
            if size >= _CONVERSATIONS_AT_ONCE:
                self._learn(batch)
                batch, size = [], 0
        if batch:
            self._learn(batch)

    def form(self, layout: Layout) -> PairForm:
        """The form of a layout that was learnt; raises `Unreadable` or `Unfaithful`."""
        with self._lock:
            found = self._known.get(layout)
            if found is not None:
                self._known.move_to_end(layout)
        if isinstance(found, PairForm):
            return found
        raise found or Unreadable("it was not rendered")

    def _keep(self, layout: Layout, found: _Found) -> None:
        with self._lock:
            self._known[layout] = found
            while len(self._known) > MAX_FORMS:
                self._known.popitem(last=False)

    def _learn(self, batch: Sequence[Probes]) -> None:
        conversations: list[Conversation] = []
        for probes in batch:
            conversations += probes.conversations

        try:
            rendered = iter(self._template.render(conversations))
        except TemplateFailed as failure:
            if len(batch) == 1:
                self._keep(batch[0].layout, Unreadable(str(failure)))
            raise
        for probes in batch:
            results = [next(rendered) for _ in probes.conversations]
            self._keep(probes.layout, self._form_or_reason(probes.layout, results))

    def _form_or_reason(
        self, layout: Layout, results: Sequence[Rendered | TemplateFailed]
    ) -> _Found:
        plain, padded, *others = results
        if isinstance(plain, TemplateFailed):
            return Unreadable(str(plain))
        if isinstance(padded, TemplateFailed):
            return Unfaithful(f"it refuses a text ({padded})")

        try:
            places = places_of(layout, plain, padded, others)
            self._expect_faithful(results)
            return halved(self._elements(layout, plain.text, places), self._ends_piece)
        except (Unreadable, Unfaithful) as reason:
            return reason

    def _expect_faithful(self, results: Sequence[Rendered | TemplateFailed]) -> None:
        """Raise `Unfaithful` where the template read texts, or changed more than tokens undo."""
        for result in results:
            if isinstance(result, TemplateFailed):
                continue
            if result.reads:
                raise Unfaithful(f"it reads the texts of a pair ({', '.join(result.reads)})")
            for old, new in result.replaces:
                if self._tokenizer.normalized(old) != self._tokenizer.normalized(new):
                    raise Unfaithful(f"it replaces {old!r:.40} in the texts of a pair")

    def _elements(
        self, layout: Layout, text: str, places: Mapping[TextPart, Place]
    ) -> list[Element]:
        """A rendered text as elements, with the images of the layout in their order."""
        images = iter(layout.images)
        shown = 0
        elements: list[Element] = []
        for element in self._split(text, places):
            if element == Control(-1 if self._image_token_id is None else self._image_token_id):
                shown += 1
                image = next(images, None)
                if image is not None:
                    elements.append(ImagePlace(*image))
            else:
                elements.append(element)

        if shown != len(layout.images):
            raise Unreadable(f"it shows {shown} of {len(layout.images)} images")
        return elements

    def _split(self, text: str, places: Mapping[TextPart, Place]) -> list[Element]:
        """A rendered text at its marks and control tokens."""
        spans = self._controls.spans(text)
        borders = {border for span in spans for border in (span.start, span.end)}
        elements: list[Element] = []
        pieces: list[tuple[int, int, Element]] = []
        for span in spans:
            pieces.append((span.start, span.end, Control(span.id)))
        takers = {span.start for span in spans if span.takes_left}
        givers = {span.end for span in spans if span.takes_right}
        words = {span.start for span in spans if span.single_word}
        words |= {span.end for span in spans if span.single_word}

        for mark in MARK.finditer(text):
            place = places[part_of(mark)]
            if borders & words & {mark.start(), mark.end()}:
                raise Unfaithful("a control token beside a text is one beside a blank alone")
            place = Place(
                place.side,
                place.part,
                _more(place.left, mark.start() in givers),
                _more(place.right, mark.end() in takers),
                place.blank,
            )
            pieces.append((mark.start(), mark.end(), place))

        end = 0
        for start, next_end, element in sorted(pieces, key=lambda piece: piece[0]):
            if start > end:
                elements.append(text[end:start])
            elements.append(element)
            end = next_end
        return [*elements, text[end:]] if end < len(text) else elements


def _more(trim: Trim, taken: bool) -> Trim:
    return "space" if taken and not trim else trim
