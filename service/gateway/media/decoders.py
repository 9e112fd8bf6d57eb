"""Images into pixels, in child processes of bounded memory that are killed when they take too long.

Knows encoded images and their headers, nothing of requests but whose they are and how much CPU time
they may still use. Children take small batches, in turns that are fair to scopes (tenants) by the
pixels that are gone over. Invariant: no image costs another its pixels, and a request uses its CPU
seconds and at most one batch a child beyond them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import anyio
import anyio.to_process

from service.cores import cores
from service.errors import ImageTooLarge, InvalidImage, RerankError
from service.gateway.admission.fair_queue import FairQueue, Kind, Turn
from service.gateway.media.decoding import decode_all, import_decoder
from service.gateway.media.quarantine import Quarantine
from service.observability.metrics import IMAGES
from service.wire import ImageRule, Pixels

DECODE_SECONDS = 10.0
"""How long one image, or one batch of small ones, may take to decode and resize before its child is
killed, by default."""
REQUEST_CPU_SECONDS = 30.0
"""How long all images of one request may take together, by default, in CPU seconds of the children.
"""
SUSPECT_SECONDS = 2.0
"""An image that took longer when its request was given up is not begun again for a while: it would
cost the next one as much."""
BATCH_IMAGES = 16
BATCH_PIXELS = 4_000_000
"""What a child decodes in one go: more than that, and others wait too long for it; less, and
handing over costs too much."""

_TOO_SLOW = "The image took too long to decode."
_SPENT = (
    "The images of this request take too long to decode all together: send fewer or smaller ones."
)


class Encoded(Protocol):
    """An image as it was sent. `effort` is how many pixels a decoder goes over."""

    @property
    def data(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def effort(self) -> int: ...


@dataclass(slots=True)
class Decoding:
    """One request's share of the decoders: its scope, and the CPU seconds it has left."""

    scope: str
    seconds: float


class Decoders:
    """Child processes, one a core. Where `decode_seconds` are over, a child is killed.

    An image whose decoding was cancelled after `suspect_seconds` is quarantined, too.
    """

    def __init__(
        self,
        *,
        decode_seconds: float = DECODE_SECONDS,
        suspect_seconds: float = SUSPECT_SECONDS,
        quarantine: Quarantine | None = None,
        slots: FairSlots | None = None,
    ) -> None:
        self._decode_seconds = decode_seconds
        self._suspect_seconds = suspect_seconds
        self._quarantine = quarantine or Quarantine()
        self._children = slots or FairSlots(cores())

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them.

        Not to be cancelled: anyio forgets a child whose start is, and Python complains of it at the
        end of the process.
        """
        with anyio.CancelScope(shield=True):
            await asyncio.gather(
                *(anyio.to_process.run_sync(import_decoder) for _ in range(cores()))
            )

    async def decode(
        self, wanted: Sequence[Encoded], rule: ImageRule, decoding: Decoding
    ) -> list[Pixels | RerankError]:
        """Each image's pixels as the model wants them, or why there are none, in order."""
        outcomes: dict[bytes, Pixels | RerankError] = {}
        fresh: list[Encoded] = []
        for each in {image.digest: image for image in wanted}.values():
            if refusal := self._quarantine.refusal(each.digest):
                outcomes[each.digest] = refusal
            else:
                fresh.append(each)
        decoded = await asyncio.gather(
            *(self._decode(batch, rule, decoding) for batch in self._batches(fresh))
        )
        outcomes.update(
            zip((each.digest for each in fresh), chain.from_iterable(decoded), strict=True)
        )
        return [outcomes[image.digest] for image in wanted]

    def _batches(self, distinct: Sequence[Encoded]) -> Iterator[list[Encoded]]:
        """Runs of images that are decoded in one go: a share a child, and no more than takes a
        moment."""
        most = max(1, math.ceil(len(distinct) / self._children.total))
        batch: list[Encoded] = []
        pixels = 0
        for image in distinct:
            full = (
                len(batch) == most
                or len(batch) == BATCH_IMAGES
                or pixels + image.effort > BATCH_PIXELS
            )
            if batch and full:
                yield batch
                batch, pixels = [], 0
            batch.append(image)
            pixels += image.effort
        if batch:
            yield batch

    async def _decode(
        self, batch: Sequence[Encoded], rule: ImageRule, decoding: Decoding
    ) -> Sequence[Pixels | RerankError]:
        """A batch; where its child died or took too long, each image alone, so that no image pays
        for another."""
        if len(batch) > 1:
            try:
                return await self._decode_once(batch, rule, decoding)
            except (TimeoutError, anyio.BrokenWorkerProcess):
                pass
        return await asyncio.gather(*(self._decode_alone(image, rule, decoding) for image in batch))

    async def _decode_alone(
        self, image: Encoded, rule: ImageRule, decoding: Decoding
    ) -> Pixels | RerankError:
        for _ in range(2):
            try:
                (decoded,) = await self._decode_once([image], rule, decoding)
            except anyio.BrokenWorkerProcess:  # perhaps it was found dead: once more
                continue
            except TimeoutError:
                return self._quarantine.add(image.digest, _TOO_SLOW)
            return decoded
        # it died of this very picture
        return self._quarantine.add(image.digest, InvalidImage.message)

    async def _decode_once(
        self, batch: Sequence[Encoded], rule: ImageRule, decoding: Decoding
    ) -> Sequence[Pixels | RerankError]:
        encoded = [image.data for image in batch]
        async with self._children.slot(decoding.scope, sum(image.effort for image in batch)):
            if decoding.seconds <= 0:
                return [ImageTooLarge(_SPENT)] * len(batch)
            begun = time.monotonic()
            try:
                with anyio.fail_after(self._decode_seconds):
                    decoded, seconds = await anyio.to_process.run_sync(
                        decode_all, encoded, rule, cancellable=True
                    )
            except (TimeoutError, anyio.BrokenWorkerProcess):
                decoding.seconds -= time.monotonic() - begun
                raise
            except asyncio.CancelledError:
                if len(batch) == 1 and time.monotonic() - begun > self._suspect_seconds:
                    self._quarantine.add(batch[0].digest, _TOO_SLOW)
                raise
        decoding.seconds -= seconds
        IMAGES.inc(sum(not isinstance(each, RerankError) for each in decoded))
        return [
            each if isinstance(each, RerankError) else Pixels(image.digest, *each)
            for image, each in zip(batch, decoded, strict=True)
        ]


class FairSlots:
    """`total` slots; of the scopes that wait for one, the scope that was served least by cost is
    next."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._queue = FairQueue()

    @asynccontextmanager
    async def slot(self, scope: str, cost: int) -> AsyncIterator[None]:
        """Wait for a slot, and hold it while the context lasts."""
        turn = Turn(scope, max(1, cost), Kind.WHOLE)
        self._queue.add(turn)
        self._let_in()
        try:
            await turn.granted
            yield
        finally:
            if turn.granted.done() and not turn.granted.cancelled():
                self._taken -= 1
            else:
                self._queue.remove(turn)
            self._let_in()

    def _let_in(self) -> None:
        while self._taken < self.total and (turn := next(self._queue.candidates(), None)):
            if turn.granted.done():  # it gave up, and its task has not run yet
                self._queue.remove(turn)
                continue
            self._queue.serve(turn)
            self._taken += 1
            turn.granted.set_result(None)
