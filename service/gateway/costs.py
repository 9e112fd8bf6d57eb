"""What things take before anything is computed: prompt tokens, guessed from lengths, and bytes of pixels, known from headers.

Knows no tokenizer: four characters a token is English, and good enough to compare loads and to bound them. Invariant: every cost
is positive.
"""

from __future__ import annotations

from service.contracts import ImageRule, Item, WorkerInfo
from service.gateway.media import Content, Picture
from service.gateway.peek import image_size
from service.gateway.pictures import smart_resize

CHARACTERS_A_TOKEN = 4
TEMPLATE_TOKENS = 64
"""About what the template adds to a query side."""
SUFFIX_TOKENS = 12
"""About what the template adds to each document."""
CHANNELS = 3


def admission_tokens(query: Item, documents: list[Item], model: WorkerInfo) -> int:
    """A request's prompt tokens before its images are looked at: each counts as its header says, or as the model's largest."""
    parts = [part for side in (query, *documents) for part in side.parts()]
    texts = sum(min(_text_tokens(text), model.max_pair_tokens) for text, _ in parts if text)
    images = sum(_image_tokens(image, model.images) for _, image in parts if image)
    return texts + images + TEMPLATE_TOKENS * (1 + len(documents))


def prefix_tokens(instruction: str, query: Content, model: WorkerInfo) -> int:
    """What all pairs of a question share: template, instruction and query."""
    return min(TEMPLATE_TOKENS + _text_tokens(instruction) + _tokens(query, model.images), model.max_pair_tokens)


def suffix_tokens(document: Content, model: WorkerInfo) -> int:
    """What a document adds to the prefix."""
    return min(SUFFIX_TOKENS + _tokens(document, model.images), model.max_pair_tokens)


def pixel_bytes(picture: Picture, rule: ImageRule) -> int:
    """The size of a picture that has been decoded and resized."""
    return CHANNELS * _pixels(picture, rule)


def _tokens(content: Content, rule: ImageRule) -> int:
    return sum(_pixels(part, rule) // rule.cell**2 if isinstance(part, Picture) else _text_tokens(part.text) for part in content)


def _image_tokens(source: str, rule: ImageRule) -> int:
    largest = rule.max_pixels // rule.cell**2
    seen = image_size(source)
    return min(_resized(*seen, rule) // rule.cell**2, largest) if seen else largest


def _text_tokens(text: str) -> int:
    return len(text) // CHARACTERS_A_TOKEN


def _pixels(picture: Picture, rule: ImageRule) -> int:
    return _resized(*picture.size, rule)


def _resized(width: int, height: int, rule: ImageRule) -> int:
    wide, high = smart_resize(width, height, cell=rule.cell, min_pixels=rule.min_pixels, max_pixels=rule.max_pixels)
    return wide * high
