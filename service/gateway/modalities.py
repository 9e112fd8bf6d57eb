"""Modalities of a model: images for a model of text are refused before anything is fetched.

Depends on the query and the model's description alone. Invariant: a query that passes has images
only where its model reads images.
"""

from __future__ import annotations

from dataclasses import replace

from service.api import Item
from service.errors import InvalidRequest, RerankError
from service.gateway.domain import RerankQuery
from service.wire import WorkerInfo


def expect_readable(query: RerankQuery, model: WorkerInfo) -> RerankQuery:
    """The query as the model can read it.

    Raises `InvalidRequest` that names the first item with an image where the model reads text only.
    With `on_error: skip`, documents with images become errors of their own instead.
    """
    if model.images is not None:
        return query

    error = InvalidRequest(f"The model {model.model} reads text only, and this item has an image.")
    if query.query.images():
        raise error.at(("query",))

    documents: list[Item | RerankError] = []
    for index, document in enumerate(query.documents):
        if isinstance(document, Item) and document.images():
            unreadable = error.at(("documents", index))
            if not query.skip_errors:
                raise unreadable
            documents.append(unreadable)
        else:
            documents.append(document)
    return replace(query, documents=documents)
