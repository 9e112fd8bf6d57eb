"""The call that scores one chunk, as each worker needs it: with the pixels that the worker lacks.

Depends on what is known of a worker's pictures, and on a way to decode, not on turns or retries.
Invariant: an image is decoded only where its pixels are sent, and each document of a chunk is
scored, has an error, or is left because the worker lacked a picture.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from service.gateway.chunks import HeldPixels, Images, distinct, pictures_in, pixels_in
from service.gateway.costs import pixel_bytes
from service.gateway.domain import Documents, PairOutcome, ScoringContext
from service.gateway.fleet.member import PoolMember
from service.gateway.fleet.sent_pictures import Key
from service.gateway.media.content import Content, Picture
from service.gateway.score_calls import image_error, outcome_of, score_call
from service.wire import MISSING_IMAGE, Pixels, Refused, ScoreCall, ScoreReply

Decode = Callable[[Sequence[Picture]], Awaitable[Images]]


def bytes_to_send(picture: Picture, context: ScoringContext, worker: PoolMember) -> int:
    """The bytes of pixels of a picture that a worker lacks: all or none."""
    if worker.pictures.size(_key(picture, context)) is not None:
        return 0
    return pixel_bytes(picture, context.model.images)


class ChunkCall:
    """The call of one chunk. The pixels of its documents count against `held`; `whole`: all pixels
    are sent, those that a worker keeps too.

    `outcomes` has an outcome for each document that has one.
    """

    def __init__(
        self,
        context: ScoringContext,
        documents: Documents,
        decode: Decode,
        held: HeldPixels,
        *,
        whole: bool = False,
    ) -> None:
        self.outcomes: dict[bytes, PairOutcome] = {}
        self._context = context
        self._documents = documents
        self._decode = decode
        self._held = held
        self._whole = whole
        self._worker: PoolMember
        self._images: Images = {}
        self._readable: Documents = {}

    async def to(self, worker: PoolMember) -> ScoreCall | None:
        """The call to a worker; None where no document can be read.

        Raises the error of a query's image that cannot be read.
        """
        context = self._context
        pictures = distinct(pictures_in(context.query, *self._documents.values()))
        images: Images = {}
        lacking: list[Picture] = []
        for picture in pictures:
            size = worker.pictures.size(_key(picture, context))
            if size is None or self._whole:
                lacking.append(picture)
            else:
                images[picture.digest] = Pixels(picture.digest, *size, b"")

        # the pixels of a call to another worker make room for these
        self._images = {}
        await self._held.change(pixels_in(self._documents, partial(self._bytes_to, worker)))
        images |= await self._decode(lacking)
        self._worker, self._images = worker, images
        return self._call()

    def suits(self, worker: PoolMember) -> bool:
        """True if a worker has all pictures whose pixels the last call leaves out."""
        for picture in pictures_in(self._context.query, *self._readable.values()):
            key = _key(picture, self._context)
            if self._leaves_out(picture) and worker.pictures.size(key) is None:
                return False
        return True

    def read(self, reply: ScoreReply) -> Documents:
        """Take the outcomes from the reply to the last call. Returns the documents whose pictures
        the worker lacks, which it is not known to have from then on; none where all were sent."""
        lacking: dict[bytes, Content] = {}
        for (key, content), pair in zip(self._readable.items(), reply.pairs, strict=True):
            missing = isinstance(pair, Refused) and pair.code == MISSING_IMAGE
            if missing and not self._whole:
                lacking[key] = content
            elif pair is not None:
                self.outcomes[key] = outcome_of(self._context.model, pair)

        self._note(lacking)
        return lacking

    def _bytes_to(self, worker: PoolMember, picture: Picture) -> int:
        if self._whole:
            return pixel_bytes(picture, self._context.model.images)
        return bytes_to_send(picture, self._context, worker)

    def _call(self) -> ScoreCall | None:
        """The call that scores the documents whose images could be decoded; the others' outcomes
        are their errors."""
        error = image_error(self._context.query, self._images)
        if error:
            raise error

        readable: dict[bytes, Content] = {}
        for key, content in self._documents.items():
            error = image_error(content, self._images)
            if error:
                self.outcomes[key] = error
            else:
                readable[key] = content

        self._readable = readable
        if not readable:
            return None
        return score_call(self._context, list(readable.values()), self._images)

    def _leaves_out(self, picture: Picture) -> bool:
        image = self._images[picture.digest]
        return isinstance(image, Pixels) and not image.rgb

    def _note(self, lacking: Documents) -> None:
        """Note the pictures that the worker keeps now, and forget those that it lacks."""
        suspects = list(pictures_in(*lacking.values()))
        if len(lacking) == len(self._readable):
            suspects += pictures_in(self._context.query)
        lost = {picture.digest for picture in suspects if self._leaves_out(picture)}

        for picture in pictures_in(self._context.query, *self._readable.values()):
            image, key = self._images[picture.digest], _key(picture, self._context)
            if picture.digest in lost:
                self._worker.pictures.forget(key)
            elif isinstance(image, Pixels):
                self._worker.pictures.add(key, (image.width, image.height))


def _key(picture: Picture, context: ScoringContext) -> Key:
    rule = context.model.images
    assert rule is not None, "images for a model of text are refused before"
    return context.cache_salt, picture.digest, rule
