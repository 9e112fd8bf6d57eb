"""A rerank request whose items are read: contents, and the bounds that every attempt to answer it
has.

Depends on the query and on contents, on no cache and no worker. Invariant: every document has a
content with that of its query, or an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from service.errors import RerankError
from service.gateway.calibrations import expect_calibrated
from service.gateway.domain import RerankQuery
from service.gateway.media.content import Content, identity
from service.gateway.media.references import StoredImages
from service.gateway.modalities import expect_readable
from service.gateway.turns import Turns
from service.wire import WorkerInfo


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A query, the contents of its items, and the bounds of its answer.

    `documents` are the readable ones by index, `queries` the query of each of them, and `errors`
    those of the others.
    """

    query: RerankQuery
    queries: Mapping[int, Content]
    documents: Mapping[int, Content]
    errors: Mapping[int, RerankError]
    deadline: float
    cache_salt: str
    turns: Turns
    stored: StoredImages | None = None
    """Kept for as long as the request is: the stored images in `documents` count as in use."""
    variant: str = ""
    """The way in which a stage of a cascade uses its model, such as a smaller size of images."""

    def shared_query(self) -> Content:
        """The query, where it is one for all documents and one of them is readable."""
        return () if self.query.paired else next(iter(self.queries.values()), ())

    def by_query(self) -> list[tuple[Content, dict[int, Content]]]:
        """The distinct queries, each with its documents by index."""
        if not self.query.paired:
            return [(self.shared_query(), dict(self.documents))]

        groups: dict[bytes, tuple[Content, dict[int, Content]]] = {}
        for index, document in self.documents.items():
            query = self.queries[index]
            _, documents = groups.setdefault(identity(query), (query, {}))
            documents[index] = document
        return list(groups.values())

    def scores_digest(self, model: WorkerInfo) -> str:
        """The digest under which metrics count the scores: each variant has its own."""
        if not self.variant:
            return model.digest
        return f"sha256:{hashlib.sha256(f'{model.digest} {self.variant}'.encode()).hexdigest()}"

    def for_new_model(self, model: WorkerInfo) -> ResolvedRequest:
        """The same request without cached scores, and without what another model cannot read;
        raises `InvalidRequest` where that model has no calibration which the request needs."""
        expect_calibrated(self.query, model)
        query = expect_readable(self.query, model)
        if query.cache == "use":
            query = replace(query, cache="refresh")

        documents: dict[int, Content] = {}
        errors = dict(self.errors)
        for index, content in self.documents.items():
            document = query.documents[index]
            if isinstance(document, RerankError):
                errors[index] = document
            else:
                documents[index] = content
        return replace(self, query=query, documents=documents, errors=errors)
