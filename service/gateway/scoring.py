"""Pairs that nobody has a score for yet: split over workers where that is faster, and scored a
bounded chunk at a time.

Knows what a worker is sent and how big that may get, nothing of keys, ranks or requests. Each chunk
waits for its request's turn, so that a large request lets others in between; while one chunk is
scored the next ones are decoded. Invariant: every pair that is asked for gets a verdict, and a
request holds at most `PIXEL_BYTES` of pixels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from service.errors import BY_CODE, DeadlineExceeded, PairTooLong, RerankError, WorkerFailed
from service.gateway.chunks import (
    Chunks,
    Documents,
    Images,
    PixelRoom,
    SharedPictures,
    pictures_in,
    pixels_in,
)
from service.gateway.costs import document_cost, prefix_tokens, query_cost, suffix_tokens
from service.gateway.domain import PairOutcome, ScoringContext
from service.gateway.fleet.dispatch import ShareDispatch
from service.gateway.fleet.pool import WorkerPool, Workload
from service.gateway.fleet.routing import balanced
from service.gateway.media.content import Content, Picture
from service.gateway.media.decoders import Decoding
from service.gateway.media.reader import Media
from service.wire import Pixels, Refused, ScoreCall, Scored, ScoreReply, WireItem, WorkerInfo

PIXEL_BYTES = 64 * 2**20
"""The most that a request's decoded images may take at a time, those of its query and of a single
document apart."""
CHUNKS_AT_ONCE = 4
"""Chunks of a share that are under way at a time: some are decoded while others are scored, and a
worker has its next at hand."""
PREFIXES_A_CHUNK = 8
"""A chunk has this many times the tokens of its prefix, where it can: an engine without a prefix
cache computes that anew."""
KEPT_BYTES = PIXEL_BYTES // 4
"""Of these, what images take that several documents show: they are kept while the request is
scored."""


class Turns(Protocol):
    """When a request may have work done: each chunk waits for a turn, which should cost
    `slice_cost` at most."""

    @property
    def scope(self) -> str: ...
    @property
    def slice_cost(self) -> int: ...
    def turn(self, cost: int) -> AbstractAsyncContextManager[None]: ...


class _Unbounded:
    """Turns that never wait."""

    scope = ""
    slice_cost = 2**62

    def turn(self, cost: int) -> AbstractAsyncContextManager[None]:
        return nullcontext()


UNBOUNDED = _Unbounded()


class Scoring:
    """Scores pairs with the help of a media reader and workers."""

    def __init__(self, media: Media, workers: WorkerPool) -> None:
        self._media = media
        self._workers = workers

    async def score(
        self,
        question: ScoringContext,
        documents: Documents,
        until: float,
        turns: Turns = UNBOUNDED,
        decoding: Decoding | None = None,
    ) -> tuple[set[str], dict[bytes, PairOutcome]]:
        """The model digests that answered, and a verdict on each document, by its key.

        What is not scored by `until` (event loop time) has `DeadlineExceeded` for a verdict. Raises
        where the query's own image cannot be read, where it or the instruction is too long by
        itself, and where no worker can be had.
        """
        if not documents:
            return set(), {}
        round_ = _Round(
            self._media,
            question,
            documents,
            until,
            turns,
            decoding or self._media.decoding(turns.scope),
        )
        with self._workers.dispatches(round_.work) as seats:
            await round_.run(seats)
        return round_.digests, round_.verdicts


class _Round:
    """One question with its documents on the way to the workers, and what has come back by now."""

    def __init__(
        self,
        media: Media,
        question: ScoringContext,
        documents: Documents,
        until: float,
        turns: Turns,
        decoding: Decoding,
    ) -> None:
        self._media = media
        self._question = question
        self._documents = documents
        self._until = until
        self._turns = turns
        self._decoding = decoding
        self._tokens = {
            key: suffix_tokens(content, question.model) for key, content in documents.items()
        }
        self._costs = {
            key: document_cost(content, question.model) for key, content in documents.items()
        }
        self._due = query_cost(question.instruction, question.query, question.model)
        self._prefix = prefix_tokens(question.instruction, question.query, question.model)
        self._shared = SharedPictures(documents.values(), question.model.images, KEPT_BYTES)
        self._room = PixelRoom(PIXEL_BYTES - KEPT_BYTES)
        self.work = Workload(
            question.model, question.prefix_key(), self._prefix, list(self._tokens.values())
        )
        self.digests: set[str] = set()
        self.verdicts: dict[bytes, PairOutcome] = dict.fromkeys(documents, DeadlineExceeded())

    async def run(self, seats: Sequence[ShareDispatch]) -> None:
        """Score everything, a share a seat, until it is done or the time is over; a failed share
        fails the round."""
        keys = list(self._documents)
        most = self._room.most // (CHUNKS_AT_ONCE * len(seats))
        try:
            async with asyncio.timeout_at(self._until), asyncio.TaskGroup() as group:
                query = group.create_task(self._decode(self._question.query))
                for seat, places in zip(
                    seats, balanced(self.work.suffixes, len(seats)), strict=True
                ):
                    share = {keys[place]: self._documents[keys[place]] for place in places}
                    chunks = Chunks(share, self._costs, self._question.model.images, most)
                    for _ in range(CHUNKS_AT_ONCE):
                        group.create_task(self._work_off(seat, chunks, query))
        except TimeoutError:
            pass  # what is not scored yet stays out of time
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _work_off(
        self, seat: ShareDispatch, chunks: Chunks, query: asyncio.Task[Images]
    ) -> None:
        """Score one chunk after the other, each in its turn."""
        while chunk := chunks.take(max(self._turns.slice_cost, PREFIXES_A_CHUNK * self._prefix)):
            cost = sum(self._costs[key] for key in chunk) + self._due
            self._due = 0
            pixels = pixels_in(chunk, self._question.model.images)
            async with self._room.holding(pixels), self._turns.turn(cost):
                await self._score(seat, chunk, query)

    async def _score(
        self, seat: ShareDispatch, chunk: Documents, query: asyncio.Task[Images]
    ) -> None:
        """Decode a chunk's images and have its documents scored."""
        images = await self._decode(*chunk.values()) | await query
        if error := _unreadable(self._question.query, images):
            raise error
        broken = {
            key: error for key, content in chunk.items() if (error := _unreadable(content, images))
        }
        self.verdicts.update(broken)
        open_ = {key: content for key, content in chunk.items() if key not in broken}
        if not open_:
            return
        call = _call(self._question, list(open_.values()), images)
        try:
            reply = await seat.score(call, sum(self._tokens[key] for key in open_), self._until)
        except DeadlineExceeded:
            return
        self.digests.add(reply.digest)
        _expect_room_for_documents(self._question.model, reply)
        for key, pair in zip(open_, reply.pairs, strict=True):
            if pair is not None:
                self.verdicts[key] = _verdict(self._question.model, pair)

    async def _decode(self, *contents: Content) -> Images:
        """The pixels of some contents' images. Those that several documents show are decoded once,
        while they may be kept."""
        model = self._question.model
        return await self._shared.decoded(
            pictures_in(*contents),
            lambda wanted: self._media.decode(wanted, model.images, self._decoding),
        )


def _call(question: ScoringContext, documents: list[Content], images: Images) -> ScoreCall:
    used = list(
        dict.fromkeys(picture.digest for picture in pictures_in(question.query, *documents))
    )
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
        cache_salt=question.cache_salt,
    )


def _unreadable(content: Content, images: Images) -> RerankError | None:
    """Why a content cannot be shown to a model, if so."""
    for picture in pictures_in(content):
        image = images[picture.digest]
        if isinstance(image, RerankError):
            return image.at(picture.loc)
    return None


def _verdict(model: WorkerInfo, pair: Scored | Refused) -> PairOutcome:
    if isinstance(pair, Scored):
        return pair
    if pair.code == PairTooLong.code:
        most = model.max_pair_tokens
        return PairTooLong(
            f"Query and document have more than the {most} tokens that the model reads."
        )
    return BY_CODE.get(pair.code, WorkerFailed)()


_TOO_LONG_ALONE = {
    "instruction": "This alone has more than the {} tokens that the model reads.",
    "query": "This and the instruction have more than the {} tokens that the model reads.",
}


def _expect_room_for_documents(model: WorkerInfo, reply: ScoreReply) -> None:
    """Raise where a part of the question is too long by itself: no document is to blame for
    that."""
    for pair in reply.pairs:
        if isinstance(pair, Refused) and pair.part in _TOO_LONG_ALONE:
            message = _TOO_LONG_ALONE[pair.part].format(model.max_pair_tokens)
            raise PairTooLong(message).at((pair.part,))
