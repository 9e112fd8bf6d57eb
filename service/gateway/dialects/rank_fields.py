"""Cohere v1's documents with fields of their own: `{"title", "text"}` and `rank_fields`.

Cohere (API v1) reads the values of the named fields in the order of `rank_fields` and nothing else
of a document. Here `image`, `id` and `metadata` keep their own meaning beside them. Knows JSON
values alone. Invariant: without `rank_fields` a document is left as it is.
"""

from __future__ import annotations

from typing import Any

from service.errors import InvalidRequest, Loc

SEPARATOR = "\n"
"""What stands between the values of two fields."""
_KEPT = ("image", "id", "metadata")


def with_text(document: Any, rank_fields: list[str], at: Loc) -> Any:
    """A document whose text is that of the named fields.

    Raises `InvalidRequest` for a field that is no string.
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
