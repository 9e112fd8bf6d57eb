"""Cohere v1's `rank_fields`: documents such as `{"title", "text"}`, whose named fields are ranked.

Cohere ranks the values of the named fields, in the order of `rank_fields`, and nothing else of a
document. Here `image`, `id` and `metadata` keep their own meaning. The module depends on JSON
values alone. Invariant: without `rank_fields` a document is not changed.
"""

from __future__ import annotations

from typing import Any

from service.errors import InvalidRequest, Loc

SEPARATOR = "\n"
"""Text between the values of two fields."""
_KEPT = ("image", "id", "metadata")


def with_text(document: Any, rank_fields: list[str], at: Loc) -> Any:
    """A document with the values of the named fields as its text.

    Raises `InvalidRequest` for a value that is no string.
    """
    if not rank_fields or not isinstance(document, dict):
        return document

    texts: list[str] = []
    for name in rank_fields:
        value = document.get(name)
        if value is None or name == "image":
            continue

        if not isinstance(value, str):
            raise InvalidRequest("This must be a string: rank_fields names it.").at((*at, name))
        texts.append(value)

    item = {name: document[name] for name in _KEPT if name in document}
    return item | {"text": SEPARATOR.join(texts)}
