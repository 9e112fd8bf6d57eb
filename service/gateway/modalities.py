"""Modalities of a model: images for a model of text are refused before anything is fetched.

Depends on the query and the model's description alone. Invariant: a query that passes has images
only where its model reads images.
"""

from __future__ import annotations

from dataclasses import replace

from service.api import Item
from service.errors import InvalidRequest
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
    if isinstance(query.query, Item) and query.query.images():
        raise error.at(("query",))

    documents = list(query.documents)
    for index, own_query, document in query.pairs():
        if document.images():
            unreadable = error.at(("documents", index))
        elif own_query.images():
            unreadable = error.at(("queries", index))
        else:
            continue

        if not query.skip_errors:
            raise unreadable
        documents[index] = unreadable
    return replace(query, documents=documents)
