"""Pairs that nobody has a score for yet: split over workers where that is faster, their images decoded a bounded chunk at a time.

Knows what a worker is sent and how big that may get, nothing of keys, ranks or requests. While one chunk is scored the next one
is decoded. Invariant: every pair that is asked for gets a verdict, and a request holds at most `PIXEL_BYTES` of pixels.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.contracts import ImageRule, Pixels, Refused, ScoreCall, Scored, ScoreReply, WireItem, WorkerInfo
from service.errors import BY_CODE, DeadlineExceeded, PairTooLong, RerankError, WorkerFailed
from service.gateway.costs import pixel_bytes, prefix_tokens, suffix_tokens
from service.gateway.identity import framed, identity
from service.gateway.media import Content, Media, Picture
from service.gateway.routing import balanced
from service.gateway.seats import Seat
from service.gateway.workers import Work, Workers

PIXEL_BYTES = 64 * 2**20
"""The most that a request's decoded images may take at a time, those of its query and of a single document apart."""
FIRST_CHUNK_BYTES = 2 * 2**20
"""Pixels of a share's first chunk: few, so that its worker has work early. Each chunk after it is twice as large."""
CHUNKS_AT_ONCE = 2
"""Chunks of a share that are under way at a time: one is decoded while another is scored."""

Verdict = Scored | RerankError
Documents = Mapping[bytes, Content]
Images = dict[bytes, Pixels | RerankError]


@dataclass(frozen=True, slots=True)
class Question:
    """All that a pair's score depends on but its document; `cache_salt` keeps those apart who must share no cache."""

    model: WorkerInfo
    instruction: str
    query: Content
    truncate: bool
    cache_salt: str = ""

    def prefix_key(self) -> bytes:
        """Equal for questions whose pairs begin alike."""
        texts = (self.model.model, self.cache_salt, self.instruction)
        return hashlib.sha256(framed(*(text.encode() for text in texts), identity(self.query))).digest()


class Scoring:
    """Scores pairs with the help of a media reader and workers."""

    def __init__(self, media: Media, workers: Workers) -> None:
        self._media = media
        self._workers = workers

    async def score(self, question: Question, documents: Documents, until: float) -> tuple[set[str], dict[bytes, Verdict]]:
        """The model digests that answered, and a verdict on each document, by its key.

        What is not scored by `until` (event loop time) has `DeadlineExceeded` for a verdict. Raises where the query's own image
        cannot be read, where it or the instruction is too long by itself, and where no worker can be had.
        """
        if not documents:
            return set(), {}
        round_ = _Round(self._media, question, documents, until)
        with self._workers.seats(round_.work) as seats:
            await round_.run(seats)
        return round_.digests, round_.verdicts


class _Round:
    """One question with its documents on the way to the workers, and what has come back by now."""

    def __init__(self, media: Media, question: Question, documents: Documents, until: float) -> None:
        self._media = media
        self._question = question
        self._documents = documents
        self._until = until
        self._tokens = {key: suffix_tokens(content, question.model) for key, content in documents.items()}
        prefix = prefix_tokens(question.instruction, question.query, question.model)
        self.work = Work(question.model, question.prefix_key(), prefix, list(self._tokens.values()))
        self.digests: set[str] = set()
        self.verdicts: dict[bytes, Verdict] = dict.fromkeys(documents, DeadlineExceeded())

    async def run(self, seats: Sequence[Seat]) -> None:
        """Score everything, a share a seat, until it is done or the time is over; a failed share fails the round."""
        keys = list(self._documents)
        most = PIXEL_BYTES // (CHUNKS_AT_ONCE * len(seats))
        try:
            async with asyncio.timeout_at(self._until), asyncio.TaskGroup() as group:
                query = group.create_task(self._decode(self._question.query))
                for seat, places in zip(seats, balanced(self.work.suffixes, len(seats)), strict=True):
                    share = {keys[place]: self._documents[keys[place]] for place in places}
                    turn = asyncio.Semaphore(CHUNKS_AT_ONCE)
                    for chunk in _chunks(share, self._question.model.images, most):
                        group.create_task(self._score(seat, chunk, query, turn))
        except TimeoutError:
            pass  # what is not scored yet stays out of time
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _score(self, seat: Seat, chunk: Documents, query: asyncio.Task[Images], turn: asyncio.Semaphore) -> None:
        """When it is a chunk's turn, decode its images and have its documents scored."""
        async with turn:
            images = await self._decode(*chunk.values()) | await query
            if error := _unreadable(self._question.query, images):
                raise error
            broken = {key: error for key, content in chunk.items() if (error := _unreadable(content, images))}
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
        self.verdicts.update({key: _verdict(pair) for key, pair in zip(open_, reply.pairs, strict=True) if pair is not None})

    async def _decode(self, *contents: Content) -> Images:
        return await self._media.decode(_pictures(*contents), self._question.model.images)


def _chunks(documents: Documents, rule: ImageRule, most: int) -> Iterator[Documents]:
    """The documents in runs that are decoded and sent together: those without images at once, then the others.

    A run's pixels take at most `most` bytes (a document with more stands alone), the first ones' less.
    """
    texts = {key: content for key, content in documents.items() if not any(_pictures(content))}
    if texts:
        yield texts
    chunk: dict[bytes, Content] = {}
    room, held = min(FIRST_CHUNK_BYTES, most), 0
    for key, content in documents.items():
        if key in texts:
            continue
        needed = sum(pixel_bytes(picture, rule) for picture in _pictures(content))
        if chunk and held + needed > room:
            yield chunk
            chunk, held, room = {}, 0, min(2 * room, most)
        chunk[key] = content
        held += needed
    if chunk:
        yield chunk


def _call(question: Question, documents: list[Content], images: Images) -> ScoreCall:
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
        cache_salt=question.cache_salt,
    )


def _pictures(*contents: Content) -> Iterable[Picture]:
    return (part for content in contents for part in content if isinstance(part, Picture))


def _unreadable(content: Content, images: Images) -> RerankError | None:
    """Why a content cannot be shown to a model, if so."""
    for picture in _pictures(content):
        image = images[picture.digest]
        if isinstance(image, RerankError):
            return image.at(picture.loc)
    return None


def _verdict(pair: Scored | Refused) -> Verdict:
    return pair if isinstance(pair, Scored) else BY_CODE.get(pair.code, WorkerFailed)()


_TOO_LONG_ALONE = {
    "instruction": "This alone has more than the {} tokens that the model reads.",
    "query": "This and the instruction have more than the {} tokens that the model reads.",
}


def _expect_room_for_documents(model: WorkerInfo, reply: ScoreReply) -> None:
    """Raise where a part of the question is too long by itself: no document is to blame for that."""
    for pair in reply.pairs:
        if isinstance(pair, Refused) and pair.part in _TOO_LONG_ALONE:
            message = _TOO_LONG_ALONE[pair.part].format(model.max_pair_tokens)
            raise PairTooLong(message).at((pair.part,))
