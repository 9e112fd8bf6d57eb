"""Scoring of pairs that have no score yet: split over workers where that is faster, and sent in
chunks of bounded size.

Depends on what a worker accepts and on the sizes of that, not on keys, ranks or requests. Each
chunk waits for a turn of its request, so that a large request lets others in between; while a chunk
is scored, the next ones are decoded. Invariant: every pair that is given gets an outcome, and a
request holds at most a fixed number of bytes of pixels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from service.errors import DeadlineExceeded
from service.gateway.admission.admitted import Work
from service.gateway.admission.computed_parts import ComputedParts
from service.gateway.chunk_call import ChunkCall, bytes_to_send
from service.gateway.chunks import (
    Chunks,
    Images,
    PixelBudget,
    SharedPictures,
    pixels_in,
)
from service.gateway.costs import (
    document_cost,
    once_and_each,
    prefix_tokens,
    query_cost,
    suffix_tokens,
)
from service.gateway.domain import Documents, PairOutcome, ScoringContext
from service.gateway.fleet.dispatch import ShareDispatch
from service.gateway.fleet.pool import WorkerPool
from service.gateway.fleet.workload import Homes, Workload
from service.gateway.media.content import Picture
from service.gateway.media.decoders import DecodeBudget
from service.gateway.media.reader import Media
from service.gateway.score_calls import expect_room_for_documents
from service.gateway.turns import UNBOUNDED, Turns
from service.wire import Scored, ScoreReply, WorkerInfo

PIXEL_BYTES = 64 * 2**20
"""Bytes of pixels that a request holds at most, those of its query and of a single document apart.
"""
SHARED_PART = 4
"""One part in so many of these bytes is for images that several documents have: they are kept
while the request is scored."""
CHUNKS_AT_ONCE = 4
"""Chunks of a share that are in progress at a time: some are decoded while others are scored, and
the worker never waits for its next call."""
WRITTEN_CHUNKS_AT_ONCE = 12
"""The same where a model writes its scores: an answer takes seconds, however many are written at
once."""
ANSWERS_A_CHUNK = 8
"""Documents that a chunk may have at least where a model writes its scores."""


class Scoring:
    """Scores documents on the workers of a pool, with at most `pixel_bytes` of pixels a request,
    and learns from the replies what is computed of them."""

    def __init__(self, media: Media, pool: WorkerPool, *, pixel_bytes: int = PIXEL_BYTES) -> None:
        self._media = media
        self._pool = pool
        self._pixel_bytes = pixel_bytes
        self._computed_parts = ComputedParts()

    def expected_part(self, model: WorkerInfo, scope: str) -> float:
        """The part of a cost that is expected to be computed, for a scope (tenant)."""
        return self._computed_parts.expected(model, scope)

    async def score(
        self,
        context: ScoringContext,
        documents: Documents,
        deadline: float,
        turns: Turns = UNBOUNDED,
        budget: DecodeBudget | None = None,
        at_once: int = 1,
    ) -> tuple[set[str], dict[bytes, PairOutcome]]:
        """Score documents; returns the model digests of the replies, and an outcome for each
        document, by its key.

        Up to `at_once` calls of this method for one request, which has several queries, share its
        bytes of pixels.

        The outcome of a pair without a reply by `deadline` (event loop time) is `DeadlineExceeded`.
        Raises the error of a query's image that cannot be read, `PairTooLong` where the query or
        the instruction is too long by itself, and `NoWorker`.
        """
        if not documents:
            return set(), {}

        job = _Job(
            self._media,
            self._computed_parts,
            context,
            documents,
            deadline=deadline,
            turns=turns,
            budget=budget or self._media.decode_budget(turns.scope),
            pixel_bytes=self._pixel_bytes // at_once,
        )
        with self._pool.dispatches(job.workload) as dispatches:
            await job.run(dispatches)
        return job.digests, job.outcomes


class _Job:
    """Documents of one context on their way to the workers, and the outcomes so far."""

    def __init__(
        self,
        media: Media,
        computed_parts: ComputedParts,
        context: ScoringContext,
        documents: Documents,
        *,
        deadline: float,
        turns: Turns,
        budget: DecodeBudget,
        pixel_bytes: int,
    ) -> None:
        self._media = media
        self._computed_parts = computed_parts
        self._context = context
        self._documents = documents
        self._deadline = deadline
        self._turns = turns
        self._decode_budget = budget

        model, rule = context.model, context.model.images
        written = model.max_completion_tokens
        self._chunks_at_once = WRITTEN_CHUNKS_AT_ONCE if written else CHUNKS_AT_ONCE
        self._answers_cost = ANSWERS_A_CHUNK * written
        # the query's cost is charged to the first chunk, or to each document that it is read with
        self._query_cost, each_cost = once_and_each(
            query_cost(context.instruction, context.query, model), model
        )
        self._prefix, each_tokens = once_and_each(
            prefix_tokens(context.instruction, context.query, model), model
        )
        self._tokens: dict[bytes, int] = {}
        self._costs: dict[bytes, int] = {}
        part = turns.expected_part()
        for key, content in documents.items():
            tokens = each_tokens + suffix_tokens(content, model)
            self._tokens[key] = max(1, int(tokens * part))
            self._costs[key] = each_cost + document_cost(content, model)

        shared_bytes = pixel_bytes // SHARED_PART
        self._shared = SharedPictures(context.query, documents.values(), rule, shared_bytes)
        self._pixels = PixelBudget(pixel_bytes - shared_bytes)

        self.workload = Workload(
            model,
            context.prefix_key() if self._prefix else None,
            self._prefix,
            list(self._tokens.values()),
            self._homes(),
        )
        self.digests: set[str] = set()
        self.outcomes: dict[bytes, PairOutcome] = dict.fromkeys(documents, DeadlineExceeded())

    async def run(self, dispatches: Sequence[ShareDispatch]) -> None:
        """Score a share on each dispatch, until all is done or the deadline; a share that fails
        fails the job."""
        try:
            async with asyncio.timeout_at(self._deadline), asyncio.TaskGroup() as group:
                max_bytes = self._pixels.max_bytes // (self._chunks_at_once * len(dispatches))
                for dispatch in dispatches:
                    chunks = self._chunks(dispatch, max_bytes)
                    for _ in range(self._chunks_at_once):
                        group.create_task(self._score_chunks(dispatch, chunks))
        except TimeoutError:
            pass  # pairs without a reply keep their DeadlineExceeded
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _homes(self) -> Homes | None:
        """The homes of documents that the model's prompts begin with."""
        model = self._context.model
        if model.cacheable_side != "document":
            return None

        contents = self._documents.values()
        tokens = [suffix_tokens(content, model) for content in contents]
        return Homes(self._context.document_keys(contents), tokens)

    def _chunks(self, dispatch: ShareDispatch, max_bytes: int) -> Chunks:
        """The chunks of a dispatch's documents."""
        keys = list(self._documents)
        share = {keys[index]: self._documents[keys[index]] for index in dispatch.documents}
        return Chunks(share, self._costs, max_bytes)

    async def _score_chunks(self, dispatch: ShareDispatch, chunks: Chunks) -> None:
        """Score one chunk of a share after the other, each in a turn of its own."""
        turns = self._turns

        def sent_bytes(picture: Picture) -> int:
            return bytes_to_send(picture, self._context, dispatch.worker)

        while chunk := chunks.take(
            max(turns.slice_cost, turns.prefixes_a_slice * self._prefix) + self._answers_cost,
            sent_bytes,
        ):
            cost = self._query_cost + sum(self._costs[key] for key in chunk)
            self._query_cost = 0
            size = pixels_in(chunk, sent_bytes)

            async with self._pixels.hold(size) as held, turns.turn(cost) as work:
                tokens = sum(self._tokens[key] for key in chunk)
                call = ChunkCall(self._context, chunk, self._decode, held)
                lacking = await self._score(dispatch, call, tokens, work)
                if lacking:
                    # the worker has dropped their pictures, or has restarted
                    call = ChunkCall(self._context, lacking, self._decode, held, whole=True)
                    await self._score(dispatch, call, 0, Work())

    async def _score(
        self, dispatch: ShareDispatch, call: ChunkCall, tokens: int, work: Work
    ) -> Documents:
        """Score a chunk's readable documents with one call; returns those whose pictures the worker
        lacked."""
        try:
            reply = await dispatch.score(call, tokens, self._deadline)
        except DeadlineExceeded:
            reply = None

        lacking: Documents = {}
        if reply is not None:
            work.computed = self._computed_part(reply)
            self.digests.add(reply.digest)
            expect_room_for_documents(self._context.model, reply)
            lacking = call.read(reply)
        self.outcomes |= call.outcomes
        return lacking

    def _computed_part(self, reply: ScoreReply) -> float:
        """The part of a reply's prompts that was computed, which further requests learn from."""
        prompts = reused = 0
        for pair in reply.pairs:
            if isinstance(pair, Scored):
                prompts += pair.prompt_tokens
                reused += pair.reused_tokens
        return self._computed_parts.add(self._context.model, self._turns.scope, prompts, reused)

    async def _decode(self, pictures: Sequence[Picture]) -> Images:
        """The pixels of some pictures, by digest."""

        async def decode(pictures: list[Picture]) -> Images:
            return await self._media.decode(
                pictures, self._context.model.images, self._decode_budget
            )

        return await self._shared.decoded(pictures, decode)
