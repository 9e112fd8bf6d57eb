"""What things cost before anything is computed, and bytes of pixels, known from headers.

The unit is about one prompt token computed. A text costs the tokens that the model may read of it,
guessed from its bytes, and a share of a token for all that a tokenizer may have to read. An image
costs its cells, and a share of a token for each pixel that is decoded. The module knows no
tokenizer: four bytes a token is English, and good enough to compare loads. Invariant: every cost is
positive, and the cost of a request is that of its query and documents.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.api import Item
from service.gateway.media.content import Content, Picture
from service.gateway.media.decoding import resized_size
from service.gateway.media.headers import size_in_base64
from service.wire import ImageRule, WorkerInfo

BYTES_A_TOKEN = 4
READ_A_TOKEN = 32
"""Bytes of a text that take a tokenizer about as long as a network takes for one token."""
MOST_READ = 6
"""Bytes that a worker reads of a text, about, for each token that a pair may have; of a longer text
no more than that."""
DECODED_A_TOKEN = 16_000
"""Pixels that take a decoder about as long as a network takes for one token."""
UNSEEN_PIXELS = 4_000_000
"""Of an image whose header cannot be seen yet, such as one at a URL."""
TEMPLATE_TOKENS = 64
"""About what the template adds to a query side."""
SUFFIX_TOKENS = 12
"""About what the template adds to each document."""
MOST_PIXELS = 200_000_000
"""No image that is accepted has more, whatever its header claims."""
CHANNELS = 3


def admission_cost(
    instruction: str, query: Item, documents: Iterable[Item], model: WorkerInfo
) -> int:
    """A request's cost before its images are looked at: each counts as its header says, or as a
    large one."""
    asked = TEMPLATE_TOKENS + _text_cost(instruction, model) + _item_cost(query, model)
    cost, repeated = once_and_each(asked, model)
    for document in documents:
        cost += repeated + SUFFIX_TOKENS + _item_cost(document, model)
    return cost


def once_and_each(amount: int, model: WorkerInfo) -> tuple[int, int]:
    """The cost of a query, split into the part of the whole request and the part of each document.

    A query that a prompt begins with is computed once for all documents, any other with each.
    """
    return (amount, 0) if model.cacheable_side == "query" else (0, amount)


def query_cost(instruction: str, query: Content, model: WorkerInfo) -> int:
    """The cost of a query and its instruction."""
    return TEMPLATE_TOKENS + _text_cost(instruction, model) + _content_cost(query, model)


def document_cost(document: Content, model: WorkerInfo) -> int:
    """What a document adds to the cost of a request."""
    return SUFFIX_TOKENS + _content_cost(document, model)


def prefix_tokens(instruction: str, query: Content, model: WorkerInfo) -> int:
    """Tokens of template, instruction and query, which all pairs of a request have."""
    return min(
        TEMPLATE_TOKENS + _text_tokens(instruction) + _tokens(query, model.images),
        model.max_pair_tokens,
    )


def suffix_tokens(document: Content, model: WorkerInfo) -> int:
    """Tokens of a document and of the template around it."""
    return min(SUFFIX_TOKENS + _tokens(document, model.images), model.max_pair_tokens)


def pixel_bytes(picture: Picture, rule: ImageRule | None) -> int:
    """The size of a picture that has been decoded and resized."""
    assert rule is not None, "images for a model of text are refused before"
    return CHANNELS * _pixels(picture, rule)


def _item_cost(item: Item, model: WorkerInfo) -> int:
    cost = 0
    for part in item.parts():
        if not part.image:
            cost += _text_cost(part.text, model)
        elif model.images:
            cost += _unopened_cost(part.image, model.images)
    return cost


def _content_cost(content: Content, model: WorkerInfo) -> int:
    cost = 0
    for part in content:
        if isinstance(part, Picture):
            cost += _image_tokens(part, model.images) + part.effort // DECODED_A_TOKEN
        else:
            cost += _text_cost(part.text, model)
    return cost


def _text_cost(text: str, model: WorkerInfo) -> int:
    """The tokens that may be computed of a text, and what of it a tokenizer may have to read for
    them."""
    size = _bytes(text)
    read = min(size, model.max_pair_tokens * MOST_READ)
    return min(size // BYTES_A_TOKEN, model.max_pair_tokens) + read // READ_A_TOKEN


def _unopened_cost(source: str, rule: ImageRule) -> int:
    """As `_content_cost` has it, from what can be seen of an image in the request."""
    seen = size_in_base64(source)
    largest = rule.max_pixels // rule.cell**2
    if seen is None:
        return largest + UNSEEN_PIXELS // DECODED_A_TOKEN
    return (
        min(_resized(*seen, rule) // rule.cell**2, largest)
        + min(seen[0] * seen[1], MOST_PIXELS) // DECODED_A_TOKEN
    )


def _tokens(content: Content, rule: ImageRule | None) -> int:
    tokens = 0
    for part in content:
        if isinstance(part, Picture):
            tokens += _image_tokens(part, rule)
        else:
            tokens += _text_tokens(part.text)
    return tokens


def _image_tokens(picture: Picture, rule: ImageRule | None) -> int:
    assert rule is not None, "images for a model of text are refused before"
    return _pixels(picture, rule) // rule.cell**2


def _text_tokens(text: str) -> int:
    return _bytes(text) // BYTES_A_TOKEN


def _bytes(text: str) -> int:
    """A text's length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _pixels(picture: Picture, rule: ImageRule) -> int:
    return _resized(*picture.size, rule)


def _resized(width: int, height: int, rule: ImageRule) -> int:
    resized_width, resized_height = resized_size(width, height, rule)
    return resized_width * resized_height
