"""The scorer of a run over HTTP: each query is ranked by one request or several.

Depends on the client's calls and on the seam of scorers, not on a run. Invariant: each of a query's
documents has a score or a refusal; what could pass is never taken for a refusal.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from model_store.evaluation.runs.scorer import ModelChanged, QueryFailed, Scored, ScoringStopped
from model_store.evaluation.tasks.dataset import Item
from service.cli.client.calls import CannotCall, Refused, RetryBounds, Service
from service.cli.client.ranking import ModelReplaced, Question, RequestSizes, rank

PATIENCE = RetryBounds(attempts=2_000, seconds=1_800.0)
"""Bounds of the retries of one request: a service that restarts, or is full, has half an hour."""
_OF_THE_QUERY = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""Statuses that a query may cause; after all others, no query can be scored."""
_PASSING = {"deadline_exceeded", "overloaded", "no_worker", "worker_failed", "internal"}
"""Codes of documents' errors that are not the documents' own."""
_PROBE = {"query": "a", "documents": ["a"], "on_error": "skip"}
"""A request whose answer names the digest of the model."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that a service scores with."""

    name: str
    digest: str
    version: str
    """The SHA-256 of its manifest ("sha256:..."); "" without one."""


async def served_model(service: Service, model: str | None, info: Mapping[str, Any]) -> ServedModel:
    """The model that answers requests for `model`; None is the service's first one.

    `info` is the service's own answer to `/info`. Raises `CannotCall`.
    """
    answer = await service.rerank({**_PROBE, **({"model": model} if model else {})})
    digest = (answer.get("meta") or {}).get("model_digest")
    if not isinstance(digest, str) or not digest:
        raise CannotCall(f"{service.url} does not name its model's digest: it is no such service.")
    is_first = info.get("model_digest") == digest
    return ServedModel(
        str(answer.get("model", "")), digest, str(info.get("version") or "") if is_first else ""
    )


class HttpScorer:
    """Scores by `POST /rerank`; `sizes` are within the service's limits."""

    def __init__(self, service: Service, model: str | None, sizes: RequestSizes) -> None:
        self._service = service
        self._model = model
        self._sizes = replace(sizes, concurrency=1)

    async def score(
        self, instruction: str | None, query: Item, documents: Sequence[Item]
    ) -> Scored:
        """The scores of documents, as `Scorer` says."""
        question = Question(_query_item(query), self._model, instruction)
        try:
            answer = await rank(
                self._service,
                question,
                [_Document(item) for item in documents],
                self._sizes,
                advance=lambda count: None,
            )
        except ModelReplaced:
            raise ModelChanged(
                "The service's model has changed in the middle of a query: a run has the scores of"
                " one model. Continue it with the one before, or give another folder."
            ) from None
        except Refused as refusal:
            if refusal.status in _OF_THE_QUERY:
                raise QueryFailed(
                    str(refusal), may_pass=refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
                ) from None
            raise ScoringStopped(str(refusal)) from None
        except CannotCall as failure:
            raise ScoringStopped(str(failure)) from None
        return _scored(answer, len(documents))


@dataclass(frozen=True, slots=True)
class _Document:
    """An item as a document of a request."""

    item: Item

    def read(self) -> tuple[Any, bytes | None]:
        text = self.item.text
        return ({} if text is None else {"text": text}), self.item.image


def _query_item(query: Item) -> dict[str, str]:
    fields: dict[str, str] = {}
    if query.text is not None:
        fields["text"] = query.text
    if query.image is not None:
        fields["image"] = base64.b64encode(query.image).decode("ascii")
    return fields


def _scored(answer: Mapping[str, Any], documents: int) -> Scored:
    """An answer as scores in the documents' order. Raises `QueryFailed`."""
    scores: list[float | None] = [None] * documents
    for result in answer["results"]:
        scores[result["index"]] = float(result["logit"])

    refusals: dict[int, str] = {}
    for error in answer["errors"]:
        if error["code"] in _PASSING:
            raise QueryFailed(str(error["message"]), may_pass=True)
        refusals[error["index"]] = str(error["message"])

    meta = answer.get("meta") or {}
    return Scored(
        scores,
        str(meta.get("model_digest", "")),
        refusals,
        prompt_tokens=int((answer.get("usage") or {}).get("prompt_tokens", 0)),
        cached_pairs=int(meta.get("cached_pairs", 0)),
    )
