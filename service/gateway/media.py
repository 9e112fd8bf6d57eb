"""From what was sent to what can be scored: texts checked, images identified, and, where a score is missing, decoded.

The only place that opens an image. Knows the request's limits, no model but its resizing rule. Invariant: an image is opened
only as PNG, JPEG or WebP, its size is read from the header before anything is decoded, and decoding happens in a child process
of bounded memory that is killed when it takes too long.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import anyio
import anyio.to_process

from service.contracts import ImageRule, Item, Limits, Pixels
from service.errors import ImageTooLarge, ImageUrlDisabled, InvalidImage, InvalidRequest, Loc, RerankError
from service.gateway import pictures
from service.telemetry import IMAGES

DECODE_SECONDS = 10.0
"""How long one image may take to decode and resize before its child process is killed."""

_LABELS = ("data:image/png;base64", "data:image/jpeg;base64", "data:image/jpg;base64", "data:image/webp;base64")


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of an item."""

    text: str

    def sha256(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Picture:
    """An image part of an item, still encoded; `digest` is the SHA-256 of `data`, `loc` its place in the request."""

    data: bytes
    digest: bytes
    loc: Loc

    def sha256(self) -> bytes:
        return self.digest


Content = tuple[Text | Picture, ...]
"""One side of a pair as it was sent: texts and images in order."""


class Media:
    """Reads items within `limits`, and decodes their images in child processes, one a core."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._children = anyio.CapacityLimiter(os.cpu_count() or 1)

    def resolve(self, item: Item, loc: Loc) -> Content:
        """Check one item and identify its images; raises a `BadRequest` that names the place. Blocking: call it off the loop."""
        sources = item.parts()
        if sum(bool(image) for _, image in sources) > self._limits.max_images_per_item:
            raise InvalidRequest(f"An item may hold {self._limits.max_images_per_item} images.").at(loc)
        if sum(len(text or "") for text, _ in sources) > self._limits.max_text_chars:
            raise InvalidRequest(f"An item's text may have {self._limits.max_text_chars} characters.").at(loc)
        parts: list[Text | Picture] = []
        for place, (text, image) in enumerate(sources):
            if text and _is_data_url(text):
                raise InvalidRequest("This text is a data URL: send it as an image.").at(loc)
            if text:
                parts.append(Text(text))
            if image:
                parts.append(self._picture(image, (*loc, *_place(item, place))))
        return tuple(parts)

    async def decode(self, pictures_: Iterable[Picture], rule: ImageRule) -> dict[bytes, Pixels | RerankError]:
        """Each distinct picture's pixels as the model wants them, or why there are none, by digest."""
        distinct = {picture.digest: picture for picture in pictures_}
        decoded = await asyncio.gather(*(self._decode(picture, rule) for picture in distinct.values()))
        return dict(zip(distinct, decoded, strict=True))

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them."""
        await asyncio.gather(*(anyio.to_process.run_sync(pictures.ready) for _ in range(os.cpu_count() or 1)))

    async def _decode(self, picture: Picture, rule: ImageRule) -> Pixels | RerankError:
        """One picture; a child that was found dead gets a successor, one that died of this very picture does not."""
        try:
            return await self._decode_once(picture, rule)
        except anyio.BrokenWorkerProcess:
            pass
        try:
            return await self._decode_once(picture, rule)
        except anyio.BrokenWorkerProcess:
            return InvalidImage()

    async def _decode_once(self, picture: Picture, rule: ImageRule) -> Pixels | RerankError:
        try:
            async with self._children:
                with anyio.fail_after(DECODE_SECONDS):
                    pixels = await anyio.to_process.run_sync(
                        pictures.decode, picture.data, rule.cell, rule.min_pixels, rule.max_pixels, cancellable=True
                    )
        except RerankError as error:
            return error
        except TimeoutError:
            return InvalidImage("The image took too long to decode.")
        IMAGES.inc()
        return Pixels(picture.digest, *pixels)

    def _picture(self, source: str, loc: Loc) -> Picture:
        """Decode the base64, and check the image's header against the limits."""
        limits = self._limits
        encoded = _base64_of(source, loc)
        if len(encoded) * 3 // 4 > limits.max_image_bytes + 2:
            raise ImageTooLarge(f"The image is larger than {limits.max_image_bytes} bytes.").at(loc)
        try:
            data = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidImage("The image is not valid base64.").at(loc) from None
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
        return Picture(data, hashlib.sha256(data).digest(), loc)


def _base64_of(source: str, loc: Loc) -> str:
    """The base64 text of a data URL, or of bare base64; URLs of other kinds are refused."""
    head = source[:64].lstrip().lower()
    if head.startswith(("http:", "https:")):
        raise ImageUrlDisabled().at(loc)
    if not head.startswith("data:"):
        return source
    label, comma, encoded = source.lstrip().partition(",")
    if not comma or label.lower() not in _LABELS:
        raise InvalidImage("An image's data URL must be of type image/png, image/jpeg or image/webp, in base64.").at(loc)
    return encoded


def _is_data_url(text: str) -> bool:
    head = text[:128].lstrip().lower()
    return head.startswith("data:") and ";base64," in head


def _place(item: Item, place: int) -> Loc:
    return ("image",) if item.content is None else ("content", place, "image_url", "url")
