"""The modalities of a model: texts and images on each side of a pair, an instruction or none.

A request that the model cannot read is refused before anything is fetched. Depends on the query and
the model's description alone. Invariant: a query that passes has nothing that its model would leave
out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from service.errors import InvalidRequest
from service.gateway.domain import RerankQuery
from service.items import Item
from service.wire import SideRule, WorkerInfo

Side = Literal["query", "document"]


def expect_readable(query: RerankQuery, model: WorkerInfo) -> RerankQuery:
    """The query as the model can read it.

    Raises `InvalidRequest` that names an instruction for which the model has no place, or the first
    item with a part that the model does not read. With `on_error: skip`, documents with such parts
    become errors of their own instead.
    """
    if query.instruction and not model.takes_instruction:
        sentence = "has no place for an instruction: send the request without it."
        raise InvalidRequest(f"The model {model.model} {sentence}").at(("instruction",))
    if _reads_everything(model):
        return query

    if isinstance(query.query, Item) and (bad_query := _unreadable(query.query, "query", model)):
        raise bad_query.at(("query",))

    documents = list(query.documents)
    for index, own_query, document in query.pairs():
        if bad_document := _unreadable(document, "document", model):
            error = bad_document.at(("documents", index))
        elif query.paired and (bad_query := _unreadable(own_query, "query", model)):
            error = bad_query.at(("queries", index))
        else:
            continue

        if not query.skip_errors:
            raise error
        documents[index] = error
    return replace(query, documents=documents)


def _reads_everything(model: WorkerInfo) -> bool:
    return model.images is not None and model.query_side == model.document_side == SideRule()


def _unreadable(item: Item, side: Side, model: WorkerInfo) -> InvalidRequest | None:
    """The reason why a model cannot read an item on a side; None where it can."""
    images, name = len(item.images()), f"The model {model.model}"
    if images and model.images is None:
        return InvalidRequest(f"{name} reads text only, and this item has an image.")

    rule = model.query_side if side == "query" else model.document_side
    if not rule.texts and item.texts():
        return InvalidRequest(f"{name} reads images only as a {side}, and this item has a text.")
    if rule.max_images is not None and images > rule.max_images:
        most = {0: "no image", 1: "at most one image"}.get(
            rule.max_images, f"at most {rule.max_images} images"
        )
        return InvalidRequest(f"{name} reads {most} in a {side}, and this item has {images}.")
    if not rule.mixed and images and item.texts():
        return InvalidRequest(
            f"{name} reads a text or an image as a {side}, and this item has both."
        )
    return None
