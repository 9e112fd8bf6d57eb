"""A pool of child processes that decode images, each bounded in memory and killed after a timeout.

The module depends on encoded images and their headers; of a request it has the scope (tenant) and
the CPU time that is left. Children take small batches. Scopes take turns by the pixels that a
decoder goes over. Invariant: an image that kills its child costs no other image its pixels, and a
request uses its CPU seconds and at most one batch for each child beyond them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain

import anyio
import anyio.to_process

from service.cores import cores
from service.errors import ImageTooLarge, InvalidImage, RerankError
from service.gateway.admission.fair_queue import FairQueue, Kind, Turn
from service.gateway.media.content import Picture
from service.gateway.media.decoding import decode_all, import_decoder
from service.gateway.media.quarantine import Quarantine
from service.observability.metrics import IMAGES
from service.wire import ImageRule, Pixels

DECODE_SECONDS = 10.0
"""The default time for one image, or one batch of small ones, after which its child is killed."""
REQUEST_CPU_SECONDS = 30.0
"""The default for all images of a request together, in CPU seconds of the children."""
SUSPECT_SECONDS = 2.0
"""An image whose request is cancelled after this time is quarantined: the next attempt would take
as long."""
BATCH_IMAGES = 16
BATCH_PIXELS = 4_000_000
"""Bounds of a batch. In a larger one an image waits too long for the others; in a smaller one,
sending it to a child costs too much."""

_TOO_SLOW = "The image took too long to decode."
_NO_TIME_LEFT = (
    "The images of this request take too long to decode all together: send fewer or smaller ones."
)


def _of_no_reaped_child(record: logging.LogRecord) -> bool:
    """False for asyncio's warning that it does not know how a child has ended.

    At the end of a loop anyio kills each child twice. The second time, `Popen` may reap what the
    thread that waits for the child was about to.
    """
    return not str(record.msg).startswith("Unknown child process pid")


@dataclass(slots=True)
class DecodeBudget:
    """A request's budget: the scope that it counts for, and the CPU seconds it has left."""

    scope: str
    seconds: float


class Decoders:
    """Decodes images in `children` processes, one for each core by default.

    A child is killed when it takes more than `decode_seconds`.
    """

    def __init__(
        self,
        *,
        decode_seconds: float = DECODE_SECONDS,
        suspect_seconds: float = SUSPECT_SECONDS,
        children: int | None = None,
        slots: FairSlots | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._decode_seconds = decode_seconds
        self._suspect_seconds = suspect_seconds
        self._slots = slots or FairSlots(children or cores())
        self._quarantine = quarantine or Quarantine()
        logging.getLogger("asyncio").addFilter(_of_no_reaped_child)

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them.

        A cancellation takes effect once they have started: anyio loses a child whose start is
        cancelled, and Python then warns about it at exit.
        """
        starting = asyncio.gather(*(_start_child() for _ in range(self._slots.total)))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await starting
            raise

    async def decode(
        self, images: Iterable[Picture], rule: ImageRule, budget: DecodeBudget
    ) -> dict[bytes, Pixels | RerankError]:
        """The pixels of each distinct image as a model wants them, or its error, by digest and in
        order."""
        distinct = {image.digest: image for image in images}
        outcomes: dict[bytes, Pixels | RerankError] = {}
        sound: list[Picture] = []
        for digest, image in distinct.items():
            refusal = self._quarantine.refusal(digest)
            if refusal:
                outcomes[digest] = refusal
            else:
                sound.append(image)

        decoded = await asyncio.gather(
            *(self._decode(batch, rule, budget) for batch in batches(sound, self._slots.total))
        )
        for image, outcome in zip(sound, chain.from_iterable(decoded), strict=True):
            outcomes[image.digest] = outcome
        return {digest: outcomes[digest] for digest in distinct}

    async def _decode(
        self, batch: Sequence[Picture], rule: ImageRule, budget: DecodeBudget
    ) -> Sequence[Pixels | RerankError]:
        """Decode a batch. Where its child dies or is killed, decode each image alone."""
        if len(batch) > 1:
            try:
                return await self._decode_once(batch, rule, budget)
            except (TimeoutError, anyio.BrokenWorkerProcess):
                pass
        return await asyncio.gather(*(self._decode_alone(image, rule, budget) for image in batch))

    async def _decode_alone(
        self, image: Picture, rule: ImageRule, budget: DecodeBudget
    ) -> Pixels | RerankError:
        for _ in range(2):
            try:
                (decoded,) = await self._decode_once([image], rule, budget)
            except anyio.BrokenWorkerProcess:  # the child may have been dead before: once more
                continue
            except TimeoutError:
                return self._quarantine.add(image.digest, _TOO_SLOW)
            return decoded

        # two children died with this image
        return self._quarantine.add(image.digest, InvalidImage.message)

    async def _decode_once(
        self, batch: Sequence[Picture], rule: ImageRule, budget: DecodeBudget
    ) -> Sequence[Pixels | RerankError]:
        encoded = [image.data for image in batch]
        async with self._slots.slot(budget.scope, sum(image.effort for image in batch)):
            if budget.seconds <= 0:
                return [ImageTooLarge(_NO_TIME_LEFT)] * len(batch)

            started = time.monotonic()
            try:
                with anyio.fail_after(self._decode_seconds):
                    decoded, cpu_seconds = await anyio.to_process.run_sync(
                        decode_all, encoded, rule, cancellable=True
                    )
            except (TimeoutError, anyio.BrokenWorkerProcess):
                budget.seconds -= time.monotonic() - started
                raise
            except asyncio.CancelledError:
                if len(batch) == 1 and time.monotonic() - started > self._suspect_seconds:
                    self._quarantine.add(batch[0].digest, _TOO_SLOW)
                raise

        budget.seconds -= cpu_seconds
        outcomes: list[Pixels | RerankError] = []
        for image, result in zip(batch, decoded, strict=True):
            if isinstance(result, RerankError):
                outcomes.append(result)
            else:
                outcomes.append(Pixels(image.digest, *result))
                IMAGES.inc()
        return outcomes


async def _start_child() -> None:
    """Start a child process, or use an idle one.

    A child that dies is replaced when an image is decoded, so the gateway starts without it.
    """
    with suppress(anyio.BrokenWorkerProcess):
        await anyio.to_process.run_sync(import_decoder)


class FairSlots:
    """`total` slots. Of the scopes that wait for one, the scope with the least cost so far is
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
        self._grant()
        try:
            await turn.granted
            yield
        finally:
            if turn.granted.done() and not turn.granted.cancelled():
                self._taken -= 1
            else:
                self._queue.remove(turn)
            self._grant()

    def _grant(self) -> None:
        """Give the free slots to the turns that are next."""
        while self._taken < self.total:
            turn = next(self._queue.candidates(), None)
            if turn is None:
                return
            if turn.granted.done():  # cancelled, and its task has not run since
                self._queue.remove(turn)
                continue

            self._queue.serve(turn)
            self._taken += 1
            turn.granted.set_result(None)


def batches(images: Sequence[Picture], children: int) -> Iterator[list[Picture]]:
    """The images in order, in batches within the bounds and of at most an even share for each
    child."""
    most = min(BATCH_IMAGES, math.ceil(len(images) / children))
    batch: list[Picture] = []
    effort = 0
    for image in images:
        if batch and (len(batch) == most or effort + image.effort > BATCH_PIXELS):
            yield batch
            batch, effort = [], 0
        batch.append(image)
        effort += image.effort
    if batch:
        yield batch
