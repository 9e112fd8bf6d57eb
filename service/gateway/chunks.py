"""Chunks: a share's documents in runs, each of which is decoded and sent to a worker as one call.

Depends on costs and on sizes of pixels, not on a worker or a decoder. Invariant: every document is
in exactly one chunk, and a chunk of more than one document stays within its bounds of cost and
pixels.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from service.errors import RerankError
from service.gateway.costs import pixel_bytes
from service.gateway.domain import Documents
from service.gateway.media.content import Content, Picture
from service.wire import ImageRule, Pixels

FIRST_CHUNK_BYTES = 2 * 2**20
"""Bytes of pixels in the first chunk of a share: few, so that its worker has work early. Each
chunk after it may be twice as large."""

Images = dict[bytes, Pixels | RerankError]
"""Decoded pictures, or why one cannot be decoded, by digest."""


def pictures_in(*contents: Content) -> Iterator[Picture]:
    """Iterate over the pictures of some contents, in order."""
    for content in contents:
        for part in content:
            if isinstance(part, Picture):
                yield part


def pixels_in(documents: Documents, rule: ImageRule | None) -> int:
    """The bytes of pixels of the distinct pictures of some documents, once they are decoded."""
    distinct = {picture.digest: picture for picture in pictures_in(*documents.values())}
    return sum(pixel_bytes(picture, rule) for picture in distinct.values())


class Chunks:
    """The chunks of one share: documents without images first, the cheapest first, then those with
    images, documents of one image together.

    A worker begins with texts while images are decoded. But where all that is left fits one chunk,
    texts and images are one chunk: a second call would have its worker read the query twice.

    `costs` are the documents' costs by key. The pixels of a chunk take at most `max_bytes`, those
    of the first chunks less.
    """

    def __init__(
        self,
        documents: Documents,
        costs: Mapping[bytes, int],
        rule: ImageRule | None,
        max_bytes: int,
    ) -> None:
        self._documents = documents
        self._costs = costs
        self._rule = rule
        self._max_bytes = max_bytes
        self._chunk_bytes = min(FIRST_CHUNK_BYTES, max_bytes)

        texts = [key for key, content in documents.items() if not any(pictures_in(content))]
        self._texts = deque(sorted(texts, key=costs.__getitem__))
        self._with_images = deque(_grouped_by_image(documents))
        self._cost_left = sum(costs[key] for key in documents)
        self._bytes_left = pixels_in(documents, rule)

    def take(self, max_cost: int) -> Documents:
        """The next chunk: of a cost of at most `max_cost`, or of one document; empty at the end."""
        if self._fits_one_chunk(max_cost):
            chunk = self._take_all()
        elif self._texts:
            chunk = self._take_texts(max_cost)
        else:
            chunk = self._take_images(max_cost)

        self._cost_left -= sum(self._costs[key] for key in chunk)
        return chunk

    def _fits_one_chunk(self, max_cost: int) -> bool:
        """True if there are both texts and images left, and one chunk can hold all of them.

        Images are taken after the last text, so all of them are left while there are texts.
        """
        mixed = bool(self._texts and self._with_images)
        return mixed and self._cost_left <= max_cost and self._bytes_left <= self._chunk_bytes

    def _take_all(self) -> Documents:
        left = {*self._texts, *self._with_images}
        self._texts.clear()
        self._with_images.clear()
        return {key: content for key, content in self._documents.items() if key in left}

    def _take_texts(self, max_cost: int) -> Documents:
        chunk: dict[bytes, Content] = {}
        cost_left = max_cost
        while self._texts:
            key = self._texts[0]
            if chunk and self._costs[key] > cost_left:
                break
            chunk[key] = self._documents[self._texts.popleft()]
            cost_left -= self._costs[key]
        return chunk

    def _take_images(self, max_cost: int) -> Documents:
        chunk: dict[bytes, Content] = {}
        digests: set[bytes] = set()
        cost_left, bytes_left = max_cost, self._chunk_bytes
        while self._with_images:
            key = self._with_images[0]
            pictures = {
                picture.digest: picture
                for picture in pictures_in(self._documents[key])
                if picture.digest not in digests
            }
            size = sum(pixel_bytes(picture, self._rule) for picture in pictures.values())
            if chunk and (self._costs[key] > cost_left or size > bytes_left):
                break

            chunk[key] = self._documents[self._with_images.popleft()]
            digests |= pictures.keys()
            cost_left -= self._costs[key]
            bytes_left -= size

        self._chunk_bytes = min(2 * self._chunk_bytes, self._max_bytes)
        return chunk


def _grouped_by_image(documents: Documents) -> Iterator[bytes]:
    """The keys of the documents with images, each beside those that begin with the same image."""
    groups: dict[bytes, list[bytes]] = {}
    for key, content in documents.items():
        first = next(pictures_in(content), None)
        if first is not None:
            groups.setdefault(first.digest, []).append(key)

    for group in groups.values():
        yield from group


class PixelBudget:
    """A bound on the bytes of pixels that a request holds at a time. A chunk that is larger than
    the bound enters when no other chunk holds pixels."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes are free, and hold them while the context lasts."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._has_room(size))
            self._used += size

        try:
            yield
        finally:
            self._used -= size
            async with self._changed:
                self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return not self._used or not size or self._used + size <= self.max_bytes


class SharedPictures:
    """Pictures that several documents of a request have: each is decoded once and kept while the
    request is scored, the most frequent ones first, up to `max_bytes` of pixels."""

    def __init__(self, contents: Iterable[Content], rule: ImageRule | None, max_bytes: int) -> None:
        pictures: dict[bytes, Picture] = {}
        counts: Counter[bytes] = Counter()
        for content in contents:
            distinct = {picture.digest: picture for picture in pictures_in(content)}
            pictures |= distinct
            counts.update(distinct.keys())

        self._decoded: dict[bytes, asyncio.Future[Pixels | RerankError] | None] = {}
        bytes_left = max_bytes
        for digest, count in counts.most_common():
            bytes_left -= pixel_bytes(pictures[digest], rule)
            if count < 2 or bytes_left < 0:
                break
            self._decoded[digest] = None

    async def decoded(
        self, pictures: Iterable[Picture], decode: Callable[[list[Picture]], Awaitable[Images]]
    ) -> Images:
        """The pixels of some pictures, by digest.

        Pictures that are neither kept nor being decoded for another document go through `decode`.
        """
        distinct = {picture.digest: picture for picture in pictures}
        pending = self._pending(distinct)
        new = [picture for digest, picture in distinct.items() if digest not in pending]

        promised = self._promise(new)
        try:
            images = await decode(new) if new else {}
            for digest, future in promised.items():
                future.set_result(images[digest])
        finally:
            for future in promised.values():
                future.cancel()  # no effect on a future that has its result

        for digest, future in pending.items():
            images[digest] = await asyncio.shield(future)
        return images

    def _pending(
        self, digests: Iterable[bytes]
    ) -> dict[bytes, asyncio.Future[Pixels | RerankError]]:
        """The futures of those pictures that are decoded, or are being decoded."""
        pending = {}
        for digest in digests:
            future = self._decoded.get(digest)
            if future is not None:
                pending[digest] = future
        return pending

    def _promise(
        self, pictures: Iterable[Picture]
    ) -> dict[bytes, asyncio.Future[Pixels | RerankError]]:
        """Futures for those pictures that are to be kept."""
        promised: dict[bytes, asyncio.Future[Pixels | RerankError]] = {}
        for picture in pictures:
            if picture.digest in self._decoded:
                promised[picture.digest] = asyncio.get_running_loop().create_future()

        self._decoded.update(promised)
        return promised
