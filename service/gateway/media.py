"""From what was sent to what can be scored: texts checked, images identified, and, where a score is missing, decoded.

The only place that opens an image. Knows the request's limits, no model but its resizing rule. Invariant: an image is opened
only as PNG, JPEG or WebP, its size is read from the header before anything is decoded, and decoding happens in a child process
of bounded memory that is killed when it takes too long. An image from a URL is from then on the bytes that were there.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import anyio
import anyio.to_process

from service.contracts import ImageRule, Item, Limits, Pixels
from service.cores import cores
from service.errors import ImageTooLarge, ImageUrlDisabled, InvalidImage, InvalidRequest, Loc, RerankError
from service.gateway import pictures
from service.gateway.data_urls import NotBase64, base64_of, decode, holds_picture, is_data_url
from service.gateway.fetch import Fetched, Fetcher
from service.gateway.quarantine import Quarantine
from service.metrics import IMAGES
from service.telemetry import stage

DECODE_SECONDS = 10.0
"""How long one image, or one batch of small ones, may take to decode and resize before its child is killed, by default."""
SUSPECT_SECONDS = 2.0
"""An image that took longer when its request was given up is not begun again for a while: it would cost the next one as much."""
BATCH_IMAGES = 16
BATCH_PIXELS = 4_000_000
"""What a child decodes in one go: more than that, and others wait too long for it; less, and handing over costs too much."""

_TOO_SLOW = "The image took too long to decode."


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of an item."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image part of an item, still encoded.

    `digest` is the SHA-256 of `data`, `loc` its place in the request, `size` (width, height) as its header says.
    """

    data: bytes
    digest: bytes
    loc: Loc
    size: tuple[int, int]


Content = tuple[Text | Picture, ...]
"""One side of a pair as it was sent: texts and images in order."""


class Media:
    """Reads items within `limits`, and decodes their images in child processes, one a core.

    Without a `fetcher`, image URLs are refused.
    """

    def __init__(self, limits: Limits, fetcher: Fetcher | None = None, *, decode_seconds: float = DECODE_SECONDS) -> None:
        self._limits = limits
        self._fetcher = fetcher
        self._decode_seconds = decode_seconds
        self._quarantine = Quarantine()
        self._children = anyio.CapacityLimiter(cores())

    async def fetch(self, items: Iterable[Item], until: float) -> Fetched:
        """What is at the image URLs of a request's items, each asked once; nothing where URLs are refused."""
        if self._fetcher is None:
            return {}
        urls = {image for item in items for _, image in item.parts() if image and _is_url(image)}
        return await self._fetcher.fetch(urls, until) if urls else {}

    def resolve(self, item: Item, loc: Loc, fetched: Fetched | None = None) -> Content:
        """Check one item and identify its images, those at URLs from what was `fetched`; raises an error that names the place.

        Blocking: call it off the loop.
        """
        sources = item.parts()
        if sum(bool(image) for _, image in sources) > self._limits.max_images_per_item:
            raise InvalidRequest(f"An item may hold {self._limits.max_images_per_item} images.").at(loc)
        if sum(len(text or "") for text, _ in sources) > self._limits.max_text_chars:
            raise InvalidRequest(f"An item's text may have {self._limits.max_text_chars} characters.").at(loc)
        parts: list[Text | Picture] = []
        for place, (text, image) in enumerate(sources):
            if text and (is_data_url(text) or holds_picture(text)):
                raise InvalidRequest("This holds a picture as text, in a data URL: send it as an image.").at(loc)
            if text:
                parts.append(Text(text))
            if image:
                parts.append(self._picture(image, (*loc, *_place(item, place)), fetched or {}))
        return tuple(parts)

    async def decode(self, pictures_: Iterable[Picture], rule: ImageRule) -> dict[bytes, Pixels | RerankError]:
        """Each distinct picture's pixels as the model wants them, or why there are none, by digest."""
        distinct = {picture.digest: picture for picture in pictures_}
        if not distinct:
            return {}
        refused: dict[bytes, Pixels | RerankError] = {
            digest: error for digest in distinct if (error := self._quarantine.refusal(digest))
        }
        fresh = [picture for digest, picture in distinct.items() if digest not in refused]
        with stage("decode"):
            decoded = await asyncio.gather(*(self._decode(batch, rule) for batch in self._batches(fresh)))
        outcomes = refused | dict(zip((picture.digest for picture in fresh), chain.from_iterable(decoded), strict=True))
        return {digest: outcomes[digest] for digest in distinct}

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them.

        Not to be cancelled: anyio forgets a child whose start is, and Python complains of it at the end of the process.
        """
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*(anyio.to_process.run_sync(pictures.ready) for _ in range(cores())))

    def _batches(self, distinct: Sequence[Picture]) -> Iterator[list[Picture]]:
        """Runs of pictures that are decoded in one go: a share a child, and no more than takes a moment."""
        most = max(1, math.ceil(len(distinct) / self._children.total_tokens))
        batch: list[Picture] = []
        pixels = 0
        for picture in distinct:
            area = picture.size[0] * picture.size[1]
            if batch and (len(batch) == most or len(batch) == BATCH_IMAGES or pixels + area > BATCH_PIXELS):
                yield batch
                batch, pixels = [], 0
            batch.append(picture)
            pixels += area
        if batch:
            yield batch

    async def _decode(self, batch: Sequence[Picture], rule: ImageRule) -> Sequence[Pixels | RerankError]:
        """A batch; where its child died or took too long, each picture alone, so that no picture pays for another."""
        if len(batch) > 1:
            try:
                return await self._decode_once(batch, rule)
            except (TimeoutError, anyio.BrokenWorkerProcess):
                pass
        return await asyncio.gather(*(self._decode_alone(picture, rule) for picture in batch))

    async def _decode_alone(self, picture: Picture, rule: ImageRule) -> Pixels | RerankError:
        for _ in range(2):
            try:
                (decoded,) = await self._decode_once([picture], rule)
            except anyio.BrokenWorkerProcess:  # perhaps it was found dead: once more
                continue
            except TimeoutError:
                return self._quarantine.add(picture.digest, _TOO_SLOW)
            return decoded
        return self._quarantine.add(picture.digest, InvalidImage.message)  # it died of this very picture

    async def _decode_once(self, batch: Sequence[Picture], rule: ImageRule) -> Sequence[Pixels | RerankError]:
        encoded = [picture.data for picture in batch]
        async with self._children:
            begun = time.monotonic()
            try:
                with anyio.fail_after(self._decode_seconds):
                    decoded = await anyio.to_process.run_sync(
                        pictures.decode_all, encoded, rule.cell, rule.min_pixels, rule.max_pixels, cancellable=True
                    )
            except asyncio.CancelledError:
                if len(batch) == 1 and time.monotonic() - begun > SUSPECT_SECONDS:
                    self._quarantine.add(batch[0].digest, _TOO_SLOW)
                raise
        IMAGES.inc(sum(not isinstance(each, RerankError) for each in decoded))
        return [
            each if isinstance(each, RerankError) else Pixels(picture.digest, *each)
            for picture, each in zip(batch, decoded, strict=True)
        ]

    def _picture(self, source: str, loc: Loc, fetched: Mapping[str, bytes | RerankError]) -> Picture:
        """Take the image's bytes, and check its header against the limits."""
        limits = self._limits
        data = _fetched_from(source, loc, fetched) if _is_url(source) else self._decoded(source, loc)
        try:
            width, height = pictures.size(data)
        except InvalidImage as error:
            raise error.at(loc) from None
        if width * height > limits.max_image_pixels:
            raise ImageTooLarge(f"The image has more than {limits.max_image_pixels} pixels.").at(loc)
        if min(width, height) < limits.min_image_side:
            raise InvalidImage(f"The image's sides must be at least {limits.min_image_side} pixels.").at(loc)
        if max(width, height) > limits.max_image_aspect * min(width, height):
            raise InvalidImage(f"The image's sides must not differ more than {limits.max_image_aspect} times.").at(loc)
        return Picture(data, hashlib.sha256(data).digest(), loc, (width, height))

    def _decoded(self, source: str, loc: Loc) -> bytes:
        encoded = base64_of(source)
        if encoded is None:
            raise InvalidImage("An image's data URL must be in base64.").at(loc)
        if len(encoded) * 3 // 4 > self._limits.max_image_bytes + 2:
            raise ImageTooLarge(f"The image is larger than {self._limits.max_image_bytes} bytes.").at(loc)
        try:
            return decode(encoded)
        except NotBase64:
            raise InvalidImage("The image is not valid base64.").at(loc) from None


def _is_url(source: str) -> bool:
    return source[:64].lstrip()[:6].lower().startswith(("http:", "https:"))


def _fetched_from(url: str, loc: Loc, fetched: Mapping[str, bytes | RerankError]) -> bytes:
    data = fetched.get(url, ImageUrlDisabled())
    if isinstance(data, RerankError):
        raise data.at(loc)
    return data


def _place(item: Item, place: int) -> Loc:
    return ("image",) if item.content is None else ("content", place, "image_url", "url")
