"""Items to contents: texts checked, images identified, and, for pairs without a score, decoded.

No other package of the gateway opens an image. It depends on the limits of a request, and on a
model only by its rule for resizing. Invariant: an image is opened only as PNG, JPEG or WebP; its
size is read from the header before anything is decoded; nothing is inflated or decoded outside of
the decoders' child processes; an image from a URL or a store is the bytes that were fetched, once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from service.errors import (
    ImageTooLarge,
    ImageUrlDisabled,
    InvalidImage,
    InvalidRequest,
    Loc,
    RerankError,
    UnknownImage,
)
from service.gateway.media.content import Content, Picture, Text
from service.gateway.media.data_urls import NotBase64, base64_of, decode, holds_picture, is_data_url
from service.gateway.media.decoders import REQUEST_CPU_SECONDS, DecodeBudget, Decoders
from service.gateway.media.encoded_image import EncodedImage, checked_image
from service.gateway.media.fetching import Fetched, Fetcher
from service.gateway.media.references import ImageStore, StoredImages, digest_of, is_reference
from service.items import Item, ItemPart
from service.limits import Limits
from service.observability.request_context import stage
from service.wire import ImageRule, Pixels


class Media:
    """Reads items within `limits` and decodes their images in child processes.

    Without a `fetcher`, image URLs are refused; without `images`, no reference is known.
    """

    def __init__(
        self,
        limits: Limits,
        decoders: Decoders,
        fetcher: Fetcher | None = None,
        images: ImageStore | None = None,
        *,
        request_seconds: float = REQUEST_CPU_SECONDS,
    ) -> None:
        self.limits = limits
        self._fetcher = fetcher
        self._images = images
        self._decoders = decoders
        self._request_seconds = request_seconds

    def decode_budget(self, scope: str = "") -> DecodeBudget:
        """The budget of a new request: its images share a bounded number of CPU seconds."""
        return DecodeBudget(scope, self._request_seconds)

    def stored(self, scope: str) -> StoredImages | None:
        """The stored images of a scope, for one request, which refers to this as long as it needs
        them; None where none are stored."""
        return self._images.opened(scope) if self._images else None

    async def fetch(
        self, items: Iterable[Item], deadline: float, stored: StoredImages | None = None
    ) -> Fetched:
        """Fetch the images at URLs and the `stored` ones that a request's items refer to, each
        once, before `deadline` (event loop time).

        The result has no URL where URLs are refused.
        """
        urls: set[str] = set()
        references: set[str] = set()
        for item in items:
            if item.image is None and item.content is None:
                continue  # nearly every item is a text
            images = item.images()
            urls.update(filter(_is_url, images))
            references.update(filter(is_reference, images))

        found: Fetched = {}
        if references:
            found = await _load(references, stored, deadline)
        if urls and self._fetcher:
            found = {**found, **await self._fetcher.fetch(urls, deadline)}
        return found

    def resolve(self, item: Item, loc: Loc, fetched: Fetched | None = None) -> Content:
        """Check an item and identify its images, those at URLs and stored ones from what was
        `fetched`.

        Raises a `RerankError` that names the location. It blocks: call it in a thread.
        """
        if item.text and item.is_text:
            self._check_counts(0, len(item.text), loc)
            return (_text(item.text, loc),)

        parts = item.parts()
        images = sum(bool(part.image) for part in parts)
        self._check_counts(images, sum(len(part.text) for part in parts), loc)

        content: list[Text | Picture] = []
        for part in parts:
            if part.image:
                content.append(self._picture(part, loc, fetched or {}))
            else:
                content.append(_text(part.text, loc))
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

    def _check_counts(self, images: int, characters: int, loc: Loc) -> None:
        limits = self.limits
        if images > limits.max_images_per_item:
            raise InvalidRequest(f"An item may hold {limits.max_images_per_item} images.").at(loc)

        if characters > limits.max_text_chars:
            message = f"An item's text may have {limits.max_text_chars} characters."
            raise InvalidRequest(message).at(loc)

    def _picture(self, part: ItemPart, at: Loc, fetched: Fetched) -> Picture:
        """Take an image's bytes and check its header; errors name its location."""
        loc = (*at, *part.loc)
        try:
            image = self._image(part.image, loc, fetched)
        except RerankError as error:
            raise error.at(loc) from None
        header = image.header
        return Picture(image.data, image.digest, loc, header.size, header.passes)

    def _image(self, source: str, loc: Loc, fetched: Fetched) -> EncodedImage:
        """The checked image of a source; it was checked before where it was stored."""
        if is_reference(source):
            found = fetched.get(source, UnknownImage())
        elif _is_url(source):
            found = fetched.get(source, ImageUrlDisabled())
        else:
            found = self._from_base64(source)

        if isinstance(found, RerankError):
            raise found.at(loc)  # a copy: one object, raised for several items, piles up tracebacks
        return checked_image(found, self.limits) if isinstance(found, bytes) else found

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


async def _load(
    references: Collection[str], stored: StoredImages | None, deadline: float
) -> Fetched:
    """The stored image of each reference, or its error."""
    found: dict[str, bytes | EncodedImage | RerankError] = {}
    digests: dict[str, bytes] = {}
    for reference in references:
        try:
            digests[reference] = digest_of(reference)
        except InvalidImage as error:
            found[reference] = error.with_traceback(None)

    known = await stored.load(set(digests.values()), deadline) if stored else {}
    for reference, digest in digests.items():
        found[reference] = known.get(digest, UnknownImage())
    return found


def _text(text: str, loc: Loc) -> Text:
    """A text that has no image in it; raises `InvalidRequest` for any other."""
    if is_data_url(text) or holds_picture(text):
        raise InvalidRequest(
            "This holds a picture as text, in a data URL: send it as an image."
        ).at(loc)
    return Text(text)


def _is_url(source: str) -> bool:
    return source[:64].lstrip()[:6].lower().startswith(("http:", "https:"))
