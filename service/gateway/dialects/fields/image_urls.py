"""Texts that are the URL of an image, which some vendors take as the image itself (Jina).

Here a string is a text, whatever is in it. The module depends on the names of image formats alone.
Invariant: it changes nothing of a request; it only warns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from service.errors import Loc, RerankError, path_of
from service.items import Item

_MAX_URL = 2048
_IMAGE_URL = re.compile(
    r"https?://\S+\.(?:png|jpe?g|webp|gif|bmp|tiff?)(?:[?#]\S*)?", re.IGNORECASE
)


def image_url_warnings(query: Item, documents: Sequence[Item | RerankError]) -> list[str]:
    """One warning with the first item whose text is the URL of an image, and the number of the
    others."""
    found = [loc for loc, item in _located(query, documents) if _is_image_url(item)]
    if not found:
        return []

    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [
        f"{path_of(found[0])}{more} is the URL of an image and was scored as a text:"
        ' send {"image": URL} for the image.'
    ]


def _located(
    query: Item, documents: Sequence[Item | RerankError]
) -> Iterable[tuple[Loc, Item | RerankError]]:
    yield ("query",), query
    for index, document in enumerate(documents):
        yield ("documents", index), document


def _is_image_url(item: Item | RerankError) -> bool:
    text = item.text if isinstance(item, Item) else None
    if not text or len(text) > _MAX_URL or text.lstrip()[:4].lower() != "http":
        return False
    return _IMAGE_URL.fullmatch(text.strip()) is not None
