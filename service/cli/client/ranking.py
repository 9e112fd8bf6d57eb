"""A ranking of any number of documents, by several requests to a service.

Depends on the calls and on batches, not on the terminal. Scores are pointwise, so that those of
several requests are comparable. Invariant: each document is a result, below `min_score` or `top_n`,
or an error; one answer never mixes the scores of two models.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from service.cli.client.batches import Batch, DocumentError, Readable, batches, encoded
from service.cli.client.calls import CannotCall, Refused, Service
from service.cli.client.stored_pictures import MAX_PUTS, UNKNOWN, put_missing

_PATH = re.compile(r"^documents\[(\d+)\]")
"""The path of a document in a sentence of the service."""


_WITHOUT_ROOM = ("overloaded", "no_worker")
"""Codes of documents that a service had no room for at the time."""


class ModelReplaced(CannotCall):
    """The service has answered with two models."""


@dataclass(frozen=True, slots=True)
class Question:
    """The fields of a request without `documents`."""

    query: Mapping[str, str]
    model: str | None = None
    instruction: str | None = None
    top_n: int | None = None
    min_score: float | None = None
    min_score_on: str | None = None

    def options(self) -> bytes:
        """The fields that are set, as JSON; bad documents are listed, and the rest is ranked."""
        fields = {
            "model": self.model,
            "query": dict(self.query),
            "instruction": self.instruction,
            "top_n": self.top_n,
            "min_score": self.min_score,
            "min_score_on": self.min_score_on,
            "on_error": "skip",
        }
        return encoded({name: value for name, value in fields.items() if value is not None})


@dataclass(frozen=True, slots=True)
class RequestSizes:
    """Bounds of the requests of one ranking."""

    documents: int
    concurrency: int
    body_bytes: int = 64 * 2**20
    put_images: int = 0
    """Pictures that are put by one call; 0: pictures are sent in requests."""


@dataclass(frozen=True, slots=True)
class _Again:
    """Positions in a batch that are to be asked for again: those that ran out of time, those whose
    pictures the service does not have any more, and those that it had no room for."""

    late: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    without_room: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.late) + len(self.lost) + len(self.without_room)


@dataclass
class _Answers:
    """The answers so far, merged: lists are appended, counts are added."""

    model: str = ""
    digest: str = ""
    identifier: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[DocumentError] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def add(self, answer: Mapping[str, Any], batch: Batch, *, may_wait: bool) -> _Again:
        """Take an answer; returns the positions in the batch that are to be asked for again.

        Raises `ModelReplaced` for an answer of another model.
        """
        meta = answer.get("meta") or {}
        digest = str(meta.get("model_digest", ""))
        if self.identifier and (digest, answer.get("model")) != (self.digest, self.model):
            raise ModelReplaced("The service's model was replaced meanwhile: rank once more.")
        self.model, self.digest = str(answer.get("model", "")), digest
        self.identifier = self.identifier or str(answer.get("id", "rr"))

        for result in answer["results"]:
            self.results.append({**result, "index": batch.indexes[result["index"]]})
        again = self._add_errors(answer.get("errors") or [], batch, may_wait=may_wait)
        _add_counts(self.usage, answer.get("usage") or {})
        _add_counts(self.meta, meta)
        return again

    def _add_errors(
        self, errors: Sequence[Mapping[str, Any]], batch: Batch, *, may_wait: bool
    ) -> _Again:
        again = _Again()
        for error in errors:
            if error["code"] == "deadline_exceeded" and len(batch.indexes) > 1:
                again.late.append(error["index"])
                continue
            if error["code"] == UNKNOWN and batch.pictures:
                again.lost.append(error["index"])
                continue
            if error["code"] in _WITHOUT_ROOM and may_wait:
                again.without_room.append(error["index"])
                continue
            index = batch.indexes[error["index"]]
            message = _PATH.sub(f"documents[{index}]", str(error["message"]))
            self.errors.append({**error, "index": index, "message": message})
        return again

    def ranked(self, question: Question) -> dict[str, Any]:
        """One answer, in the service's own shape and order."""
        results = sorted(self.results, key=lambda result: (-result["logit"], result["index"]))
        return {
            "id": self.identifier,
            "object": "rerank",
            "model": self.model,
            "results": results[: question.top_n or None],
            "errors": sorted(self.errors, key=lambda error: error["index"]),
            "usage": self.usage,
            "meta": self.meta,
        }


async def rank(
    service: Service,
    question: Question,
    documents: Sequence[Readable],
    sizes: RequestSizes,
    *,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """The answer for all documents, in the shape of `POST /rerank`.

    `advance` is called with the number of documents that were scored, or failed. A request that is
    too large for the service, or that runs out of time, is asked for again in parts; documents that
    the service had no room for are asked for again after a wait, within the bounds of retries.
    Raises `CannotCall`.
    """
    answers = _Answers()

    def failed(error: DocumentError) -> None:
        answers.errors.append(error)
        advance(1)

    options = question.options()
    waiting = batches(
        documents,
        max_documents=sizes.documents,
        max_body_bytes=sizes.body_bytes,
        options_bytes=len(options),
        on_error=failed,
        refer=sizes.put_images > 0,
    )
    asking = _Asking(service, options, sizes.put_images, answers, advance)
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(sizes.concurrency):
                tasks.create_task(asking.work(waiting))
    except* CannotCall as failures:
        raise failures.exceptions[0] from None
    return answers.ranked(question)


@dataclass
class _Asking:
    """The requests of a ranking: each batch with the parts that it has to be split into."""

    service: Service
    options: bytes
    put_images: int
    answers: _Answers
    advance: Callable[[int], None]

    async def work(self, waiting: Iterator[Batch]) -> None:
        """Rank batch after batch."""
        for batch in waiting:
            parts = [batch]
            while parts:
                parts += await self._rank_part(parts.pop())

    async def _rank_part(self, part: Batch) -> list[Batch]:
        """Rank one batch; returns smaller ones of the documents that are to be asked for again."""
        part = await self._with_pictures(part)
        try:
            answer = await self.service.rerank_encoded(part.body(self.options))
        except Refused as refusal:
            too_large = refusal.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            if too_large and len(part.indexes) > 1:
                return part.halves()
            raise

        may_wait = self.service.may_wait(part.waits + 1)
        again = self.answers.add(answer, part, may_wait=may_wait)
        self.advance(len(part.indexes) - len(again))
        parts = [part.part(again.lost)] if again.lost else []
        if len(again.late) == len(part.indexes):
            parts += part.halves()
        elif again.late:
            parts.append(part.part(again.late))
        if again.without_room:
            await self.service.wait(part.waits + 1)
            parts.append(replace(part.part(again.without_room), waits=part.waits + 1))
        return parts

    async def _with_pictures(self, part: Batch) -> Batch:
        """The batch once its pictures were put, or with them in it: where the service stores none,
        or has lost those that were put for it twice."""
        if not part.pictures:
            return part
        pictures = {name: part.pictures[name] for name in part.references()}
        stored = part.puts < MAX_PUTS and await put_missing(
            self.service, pictures, at_once=self.put_images
        )
        return replace(part, pictures=pictures, puts=part.puts + 1) if stored else part.inlined()


def _add_counts(total: dict[str, Any], counts: Mapping[str, Any]) -> None:
    """Add numbers to those of the same name, and lists to lists without repeating; other values
    are kept."""
    for name, value in counts.items():
        if isinstance(value, Mapping):
            _add_counts(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value
        elif isinstance(value, list):
            known = total.setdefault(name, [])
            known += [each for each in value if each not in known]
        else:
            total[name] = value
