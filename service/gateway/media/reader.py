"""Items to contents: texts checked, images identified, and, for pairs without a score, decoded.

No other module of the gateway opens an image. It depends on the limits of a request, and on a model
only by its rule for resizing. Invariant: an image is opened only as PNG, JPEG or WebP; its size is
read from the header before anything is decoded; nothing is inflated or decoded outside of the
decoders' child processes; an image from a URL is the bytes that were fetched, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from service.api import Item, ItemPart
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
from service.gateway.media.decoders import REQUEST_CPU_SECONDS, DecodeBudget, Decoders
from service.gateway.media.fetching import Fetched, Fetcher
from service.gateway.media.headers import Header, read_header
from service.limits import Limits
from service.observability.request_context import stage
from service.wire import ImageRule, Pixels


class Media:
    """Reads items within `limits` and decodes their images in child processes.

    Without a `fetcher`, image URLs are refused.
    """

    def __init__(
        self,
        limits: Limits,
        decoders: Decoders,
        fetcher: Fetcher | None = None,
        *,
        request_seconds: float = REQUEST_CPU_SECONDS,
    ) -> None:
        self.limits = limits
        self._fetcher = fetcher
        self._decoders = decoders
        self._request_seconds = request_seconds

    def decode_budget(self, scope: str = "") -> DecodeBudget:
        """The budget of a new request: its images share a bounded number of CPU seconds."""
        return DecodeBudget(scope, self._request_seconds)

    async def fetch(self, items: Iterable[Item], deadline: float) -> Fetched:
        """Fetch the image URLs of a request's items, each once, before `deadline` (event loop
        time).

        The result is empty where URLs are refused.
        """
        if self._fetcher is None:
            return {}

        urls: set[str] = set()
        for item in items:
            urls.update(filter(_is_url, item.images()))
        return await self._fetcher.fetch(urls, deadline) if urls else {}

    def resolve(self, item: Item, loc: Loc, fetched: Fetched | None = None) -> Content:
        """Check an item and identify its images, those at URLs from what was `fetched`.

        Raises a `RerankError` that names the location. It blocks: call it in a thread.
        """
        self._check_counts(item, loc)

        content: list[Text | Picture] = []
        for part in item.parts():
            if part.image:
                content.append(self._picture(part, loc, fetched or {}))
            elif is_data_url(part.text) or holds_picture(part.text):
                raise InvalidRequest(
                    "This holds a picture as text, in a data URL: send it as an image."
                ).at(loc)
            else:
                content.append(Text(part.text))
        return tuple(content)

    async def decode(
        self,
        pictures: Iterable[Picture],
        rule: ImageRule | None,
        budget: DecodeBudget | None = None,
    ) -> dict[bytes, Pixels | RerankError]:
        """The pixels of each distinct image as a model wants them, or its error, by digest."""
        to_decode = list(pictures)
        if not to_decode:
            return {}
        assert rule is not None, "images for a model of text are refused before"

        with stage("decode"):
            return await self._decoders.decode(to_decode, rule, budget or self.decode_budget())

    async def warm_up(self) -> None:
        """Start the child processes, so that the first request does not wait for them."""
        await self._decoders.warm_up()

    def _check_counts(self, item: Item, loc: Loc) -> None:
        limits = self.limits
        if len(item.images()) > limits.max_images_per_item:
            raise InvalidRequest(f"An item may hold {limits.max_images_per_item} images.").at(loc)

        if sum(map(len, item.texts())) > limits.max_text_chars:
            message = f"An item's text may have {limits.max_text_chars} characters."
            raise InvalidRequest(message).at(loc)

    def _picture(self, part: ItemPart, at: Loc, fetched: Fetched) -> Picture:
        """Take an image's bytes and check its header; errors name its location."""
        loc = (*at, *part.loc)
        try:
            if _is_url(part.image):
                data = _fetched_from(part.image, loc, fetched)
            else:
                data = self._from_base64(part.image)
            header = read_header(data)
            self._check_size(header)
        except RerankError as error:
            raise error.at(loc) from None
        return Picture(data, hashlib.sha256(data).digest(), loc, header.size, header.passes)

    def _from_base64(self, source: str) -> bytes:
        encoded = base64_of(source)
        if encoded is None:
            raise InvalidImage("An image's data URL must be in base64.")

        most = self.limits.max_image_bytes
        if len(encoded) * 3 // 4 > most + 2:
            raise ImageTooLarge(f"The image is larger than {most} bytes.")

        try:
            return decode(encoded)
        except NotBase64:
            raise InvalidImage("The image is not valid base64.") from None

    def _check_size(self, header: Header) -> None:
        limits = self.limits
        shorter, longer = sorted(header.size)
        if shorter * longer > limits.max_image_pixels:
            raise ImageTooLarge(f"The image has more than {limits.max_image_pixels} pixels.")
        if shorter < limits.min_image_side:
            message = f"The image's sides must be at least {limits.min_image_side} pixels."
            raise InvalidImage(message)
        if longer > limits.max_image_aspect * shorter:
            message = (
                f"The image's sides must not differ more than {limits.max_image_aspect} times."
            )
            raise InvalidImage(message)


def _is_url(source: str) -> bool:
    return source[:64].lstrip()[:6].lower().startswith(("http:", "https:"))


def _fetched_from(url: str, loc: Loc, fetched: Mapping[str, bytes | RerankError]) -> bytes:
    data = fetched.get(url, ImageUrlDisabled())
    if isinstance(data, RerankError):
        raise data.at(loc)  # a copy: raising one object for several items would pile up tracebacks
    return data
