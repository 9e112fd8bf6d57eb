"""From what was sent to what can be scored: texts checked, images identified, and, where a score is
missing, decoded.

The only place that opens an image. Knows the request's limits, no model but its resizing rule.
Invariant: an image is opened only as PNG, JPEG or WebP, its size is read from the header before
anything is decoded, and nothing is unpacked or decoded but in the decoders' child processes. An
image from a URL is from then on the bytes that were there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from service.api import Item, Limits
from service.errors import (
    ImageTooLarge,
    ImageUrlDisabled,
    InvalidImage,
    InvalidRequest,
    Loc,
    RerankError,
)
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.data_urls import NotBase64, base64_of, decode, holds_picture, is_data_url
from service.gateway.media.decoders import DECODE_SECONDS, REQUEST_CPU_SECONDS, Decoders, Decoding
from service.gateway.media.fetching import Fetched, Fetcher
from service.gateway.media.headers import read_header
from service.observability.request_context import stage
from service.wire import ImageRule, Pixels


class Media:
    """Reads items within `limits`, and decodes their images in child processes, one a core.

    Without a `fetcher`, image URLs are refused.
    """

    def __init__(
        self,
        limits: Limits,
        fetcher: Fetcher | None = None,
        *,
        decode_seconds: float = DECODE_SECONDS,
        request_seconds: float = REQUEST_CPU_SECONDS,
    ) -> None:
        self.limits = limits
        self._fetcher = fetcher
        self._decoders = Decoders(decode_seconds=decode_seconds)
        self._request_seconds = request_seconds

    def decoding(self, scope: str = "") -> Decoding:
        """A new request's share of the decoders; its images may take a bounded number of CPU
        seconds together."""
        return Decoding(scope, self._request_seconds)

    async def fetch(self, items: Iterable[Item], until: float) -> Fetched:
        """What is at the image URLs of a request's items, each asked once; nothing where URLs are
        refused."""
        if self._fetcher is None:
            return {}
        urls = {image for item in items for _, image in item.parts() if image and _is_url(image)}
        return await self._fetcher.fetch(urls, until) if urls else {}

    def resolve(self, item: Item, loc: Loc, fetched: Fetched | None = None) -> Content:
        """Check one item and identify its images, those at URLs from what was `fetched`; raises an
        error that names the place.

        Blocking: call it off the loop.
        """
        sources = item.parts()
        if sum(bool(image) for _, image in sources) > self.limits.max_images_per_item:
            raise InvalidRequest(f"An item may hold {self.limits.max_images_per_item} images.").at(
                loc
            )
        if sum(len(text or "") for text, _ in sources) > self.limits.max_text_chars:
            raise InvalidRequest(
                f"An item's text may have {self.limits.max_text_chars} characters."
            ).at(loc)
        parts: list[Text | Picture] = []
        for place, (text, image) in enumerate(sources):
            if text and (is_data_url(text) or holds_picture(text)):
                raise InvalidRequest(
                    "This holds a picture as text, in a data URL: send it as an image."
                ).at(loc)
            if text:
                parts.append(Text(text))
            if image:
                parts.append(self._picture(image, (*loc, *_place(item, place)), fetched or {}))
        return tuple(parts)

    async def decode(
        self, pictures: Iterable[Picture], rule: ImageRule, decoding: Decoding | None = None
    ) -> dict[bytes, Pixels | RerankError]:
        """Each distinct picture's pixels as the model wants them, or why there are none, by
        digest."""
        distinct = {picture.digest: picture for picture in pictures}
        if not distinct:
            return {}
        with stage("decode"):
            decoded = await self._decoders.decode(
                list(distinct.values()), rule, decoding or self.decoding()
            )
        return dict(zip(distinct, decoded, strict=True))

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them."""
        await self._decoders.warm_up()

    def _picture(
        self, source: str, loc: Loc, fetched: Mapping[str, bytes | RerankError]
    ) -> Picture:
        """Take the image's bytes, and check its header against the limits."""
        limits = self.limits
        data = (
            _fetched_from(source, loc, fetched) if _is_url(source) else self._decoded(source, loc)
        )
        try:
            header = read_header(data)
        except InvalidImage as error:
            raise error.at(loc) from None
        width, height = header.size
        if width * height > limits.max_image_pixels:
            raise ImageTooLarge(f"The image has more than {limits.max_image_pixels} pixels.").at(
                loc
            )
        if min(width, height) < limits.min_image_side:
            raise InvalidImage(
                f"The image's sides must be at least {limits.min_image_side} pixels."
            ).at(loc)
        if max(width, height) > limits.max_image_aspect * min(width, height):
            raise InvalidImage(
                f"The image's sides must not differ more than {limits.max_image_aspect} times."
            ).at(loc)
        return Picture(data, hashlib.sha256(data).digest(), loc, header.size, header.passes)

    def _decoded(self, source: str, loc: Loc) -> bytes:
        encoded = base64_of(source)
        if encoded is None:
            raise InvalidImage("An image's data URL must be in base64.").at(loc)
        if len(encoded) * 3 // 4 > self.limits.max_image_bytes + 2:
            raise ImageTooLarge(
                f"The image is larger than {self.limits.max_image_bytes} bytes."
            ).at(loc)
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
