"""Pairs that nobody has a score for yet: decode their images, and have a worker score them, a bounded chunk at a time.

Knows what a worker is sent and how big that may get, nothing of keys, ranks or requests. Invariant: every pair that is asked for
gets a verdict, and pixels of at most one chunk are held at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from service.contracts import Pixels, Refused, ScoreCall, Scored, WireItem, WorkerInfo
from service.errors import BY_CODE, DeadlineExceeded, RerankError, WorkerFailed
from service.gateway.media import Content, Media, Picture
from service.gateway.workers import Workers

CHUNK_PIXEL_BYTES = 64 * 2**20
"""The most that the decoded images of one call may take; a request with more is scored in several calls."""

Verdict = Scored | RerankError


@dataclass(frozen=True, slots=True)
class Question:
    """All that a pair's score depends on but its document."""

    model: WorkerInfo
    instruction: str
    query: Content
    truncate: bool


class Scoring:
    """Scores pairs with the help of a media reader and workers."""

    def __init__(self, media: Media, workers: Workers) -> None:
        self._media = media
        self._workers = workers

    async def score(
        self, question: Question, documents: Mapping[bytes, Content], until: float
    ) -> tuple[set[str], dict[bytes, Verdict]]:
        """The model digests that answered, and a verdict on each document, by its key.

        What is not scored by `until` (event loop time) has `DeadlineExceeded` for a verdict. Raises where the query's own image
        cannot be read, and where no worker can be had.
        """
        digests: set[str] = set()
        verdicts: dict[bytes, Verdict] = dict.fromkeys(documents, DeadlineExceeded())
        for chunk in _chunks(question, documents):
            try:
                async with asyncio.timeout_at(until):
                    images = await self._media.decode(_pictures(question.query, *chunk.values()), question.model.images)
            except TimeoutError:
                break
            broken = {key: error for key, content in chunk.items() if (error := _unreadable(content, images))}
            if error := _unreadable(question.query, images):
                raise error
            verdicts |= broken
            open_ = {key: content for key, content in chunk.items() if key not in broken}
            if open_:
                try:
                    reply = await self._workers.score(_call(question, list(open_.values()), images), until)
                except DeadlineExceeded:
                    break
                digests.add(reply.digest)
                verdicts |= {key: _verdict(pair) for key, pair in zip(open_, reply.pairs, strict=True) if pair is not None}
        return digests, verdicts


def _chunks(question: Question, documents: Mapping[bytes, Content]) -> Iterator[dict[bytes, Content]]:
    """The documents in order, in runs whose images fit the bound (a document with more than that stands alone)."""
    most = CHUNK_PIXEL_BYTES // (3 * question.model.images.max_pixels)
    chunk: dict[bytes, Content] = {}
    pictures: set[bytes] = set()
    for key, content in documents.items():
        added = {picture.digest for picture in _pictures(content)}
        if chunk and len(pictures | added) > most:
            yield chunk
            chunk, pictures = {}, set()
        chunk[key] = content
        pictures |= added
    if chunk:
        yield chunk


def _call(question: Question, documents: list[Content], images: Mapping[bytes, Pixels | RerankError]) -> ScoreCall:
    used = list(dict.fromkeys(picture.digest for picture in _pictures(question.query, *documents)))
    places = {digest: place for place, digest in enumerate(used)}

    def wire(content: Content) -> WireItem:
        return [places[part.digest] if isinstance(part, Picture) else part.text for part in content]

    return ScoreCall(
        model=question.model.model,
        instruction=question.instruction,
        query=wire(question.query),
        documents=[wire(document) for document in documents],
        images=[pixels for digest in used if isinstance(pixels := images[digest], Pixels)],
        truncate=question.truncate,
    )


def _pictures(*contents: Content) -> Iterable[Picture]:
    return (part for content in contents for part in content if isinstance(part, Picture))


def _unreadable(content: Content, images: Mapping[bytes, Pixels | RerankError]) -> RerankError | None:
    """Why a content cannot be shown to a model, if so."""
    for picture in _pictures(content):
        image = images[picture.digest]
        if isinstance(image, RerankError):
            return image.at(picture.loc)
    return None


def _verdict(pair: Scored | Refused) -> Verdict:
    return pair if isinstance(pair, Scored) else BY_CODE.get(pair.code, WorkerFailed)()
