"""Estimated costs of requests and documents, and the bytes of decoded images.

The unit is about one computed prompt token. A text costs the tokens that the model may read of it,
estimated from its bytes, and a share of a token for the bytes that a tokenizer may have to read. An
image costs its cells, and a share of a token for each pixel that is decoded. A score that the model
writes as text costs the bound on that text: most are shorter, but a token that is written costs
more than one that is read. The module depends on no tokenizer: four bytes per token hold for
English, and suffice to compare loads. Invariant: every cost is positive, and the cost of a request
is that of its query and documents.
"""

from __future__ import annotations

from collections.abc import Iterable

from service.gateway.domain import RerankQuery
from service.gateway.media.content import Content, Picture
from service.gateway.media.decoding import resized_size
from service.gateway.media.headers import size_in_base64
from service.items import Item, ItemPart
from service.wire import ImageRule, WorkerInfo

BYTES_PER_TOKEN = 4
TOKENIZED_BYTES_PER_TOKEN = 32
"""Bytes that a tokenizer reads in about the time in which a network computes one token."""
MAX_BYTES_PER_PAIR_TOKEN = 6
"""Bytes that a worker reads at most of a text for each token that a pair may have."""
DECODED_PIXELS_PER_TOKEN = 16_000
"""Pixels that a decoder decodes in about the time in which a network computes one token."""
UNKNOWN_IMAGE_PIXELS = 4_000_000
"""Assumed pixels of an image whose header is not available yet, such as one at a URL."""
TEMPLATE_TOKENS = 64
"""Tokens that a template adds to a query, about."""
SUFFIX_TOKENS = 12
"""Tokens that a template adds to each document, about."""
MAX_IMAGE_PIXELS = 200_000_000
"""Pixels that are counted at most, whatever an image's header claims: larger ones are refused."""
CHANNELS = 3


def request_cost(query: RerankQuery, model: WorkerInfo) -> int:
    """The cost of all pairs of a request before its images are opened; the documents of equal
    queries count as those of one."""
    instruction = query.instruction or model.default_instruction
    if isinstance(query.query, Item):
        documents = [document for _, _, document in query.pairs()]
        return admission_cost(instruction, query.query, documents, model)

    groups: dict[tuple[ItemPart, ...], tuple[Item, list[Item]]] = {}
    for _, own_query, document in query.pairs():
        parts = tuple(own_query.parts())
        groups.setdefault(parts, (own_query, []))[1].append(document)

    costs = [admission_cost(instruction, *group, model) for group in groups.values()]
    return sum(costs) or 1


def admission_cost(
    instruction: str, query: Item, documents: Iterable[Item], model: WorkerInfo
) -> int:
    """The cost of a request before its images are opened.

    An image counts by its header, or as a large one where its header is not available.
    """
    query_side = TEMPLATE_TOKENS + _text_cost(instruction, model) + _item_cost(query, model)
    cost, repeated = once_and_each(query_side, model)
    for document in documents:
        cost += repeated + SUFFIX_TOKENS + _item_cost(document, model)
        cost += model.max_completion_tokens
    return cost


def once_and_each(amount: int, model: WorkerInfo) -> tuple[int, int]:
    """The cost of a query for the whole request, and its cost for each document.

    A query that a prompt begins with is computed once for all documents, any other with each.
    """
    return (amount, 0) if model.cacheable_side == "query" else (0, amount)


def query_cost(instruction: str, query: Content, model: WorkerInfo) -> int:
    """The cost of a query and its instruction."""
    return TEMPLATE_TOKENS + _text_cost(instruction, model) + _content_cost(query, model)


def document_cost(document: Content, model: WorkerInfo) -> int:
    """The amount that a document adds to the cost of a request."""
    return SUFFIX_TOKENS + _content_cost(document, model) + model.max_completion_tokens


def prefix_tokens(instruction: str, query: Content, model: WorkerInfo) -> int:
    """Estimated tokens of template, instruction and query, which all pairs of a request share."""
    tokens = TEMPLATE_TOKENS + _text_tokens(instruction) + _tokens(query, model.images)
    return min(tokens, model.max_pair_tokens)


def suffix_tokens(document: Content, model: WorkerInfo) -> int:
    """Estimated tokens of a document, of the template around it, and of a score as text."""
    prompt = min(SUFFIX_TOKENS + _tokens(document, model.images), model.max_pair_tokens)
    return prompt + model.max_completion_tokens


def pixel_bytes(picture: Picture, rule: ImageRule | None) -> int:
    """The size in memory of an image that has been decoded and resized."""
    assert rule is not None, "images for a model of text are refused before"
    return CHANNELS * _pixels(picture, rule)


def _item_cost(item: Item, model: WorkerInfo) -> int:
    """The cost of an item as it was sent."""
    if item.text and item.is_text:
        return _text_cost(item.text, model)

    cost = 0
    for part in item.parts():
        if not part.image:
            cost += _text_cost(part.text, model)
        elif model.images:
            cost += _unopened_cost(part.image, model.images)
    return cost


def _content_cost(content: Content, model: WorkerInfo) -> int:
    """The cost of an item whose images were identified."""
    cost = 0
    for part in content:
        if isinstance(part, Picture):
            cost += _image_tokens(part, model.images) + part.effort // DECODED_PIXELS_PER_TOKEN
        else:
            cost += _text_cost(part.text, model)
    return cost


def _text_cost(text: str, model: WorkerInfo) -> int:
    """The tokens of a text that may be computed, and the cost of reading it for them."""
    size = _utf8_length(text)
    computed = min(size // BYTES_PER_TOKEN, model.max_pair_tokens)
    read = min(size, model.max_pair_tokens * MAX_BYTES_PER_PAIR_TOKEN)
    return computed + read // TOKENIZED_BYTES_PER_TOKEN


def _unopened_cost(source: str, rule: ImageRule) -> int:
    """The cost of an image by its header, where the request has it."""
    max_tokens = rule.max_pixels // rule.cell**2
    size = size_in_base64(source)
    if size is None:
        return max_tokens + UNKNOWN_IMAGE_PIXELS // DECODED_PIXELS_PER_TOKEN

    width, height = size
    tokens = min(_resized_pixels(width, height, rule) // rule.cell**2, max_tokens)
    return tokens + min(width * height, MAX_IMAGE_PIXELS) // DECODED_PIXELS_PER_TOKEN


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
    return _utf8_length(text) // BYTES_PER_TOKEN


def _utf8_length(text: str) -> int:
    """The number of a text's bytes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _pixels(picture: Picture, rule: ImageRule) -> int:
    width, height = picture.size
    return _resized_pixels(width, height, rule)


def _resized_pixels(width: int, height: int, rule: ImageRule) -> int:
    resized_width, resized_height = resized_size(width, height, rule)
    return resized_width * resized_height
