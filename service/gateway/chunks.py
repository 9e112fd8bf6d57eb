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

PictureBytes = Callable[[Picture], int]
"""The bytes of pixels that are sent of a picture."""


def pictures_in(*contents: Content) -> Iterator[Picture]:
    """Iterate over the pictures of some contents, in order."""
    for content in contents:
        for part in content:
            if isinstance(part, Picture):
                yield part


def distinct(pictures: Iterable[Picture]) -> list[Picture]:
    """Pictures, each once."""
    return list({picture.digest: picture for picture in pictures}.values())


def pixels_in(documents: Documents, sent_bytes: PictureBytes) -> int:
    """The bytes of pixels that are sent of the distinct pictures of some documents."""
    return sum(map(sent_bytes, distinct(pictures_in(*documents.values()))))


class Chunks:
    """The chunks of one share: documents without images first, the cheapest first, then those with
    images, documents of one image together.

    A worker begins with texts while images are decoded. But where all that is left fits one chunk,
    texts and images are one chunk: a second call would have its worker read the query twice.

    `costs` are the documents' costs by key. The pixels that are sent of a chunk take at most
    `max_bytes`, those of the first chunks less.
    """

    def __init__(self, documents: Documents, costs: Mapping[bytes, int], max_bytes: int) -> None:
        self._documents = documents
        self._costs = costs
        self._max_bytes = max_bytes
        self._chunk_bytes = min(FIRST_CHUNK_BYTES, max_bytes)

        texts = [key for key, content in documents.items() if not any(pictures_in(content))]
        self._texts = deque(sorted(texts, key=costs.__getitem__))
        self._with_images = deque(_grouped_by_image(documents))
        self._cost_left = sum(costs[key] for key in documents)

    def take(self, max_cost: int, sent_bytes: PictureBytes) -> Documents:
        """The next chunk: of a cost of at most `max_cost`, or of one document; empty at the end."""
        if self._fits_one_chunk(max_cost, sent_bytes):
            chunk = self._take_all()
        elif self._texts:
            chunk = self._take_texts(max_cost)
        else:
            chunk = self._take_images(max_cost, sent_bytes)

        self._cost_left -= sum(self._costs[key] for key in chunk)
        return chunk

    def _fits_one_chunk(self, max_cost: int, sent_bytes: PictureBytes) -> bool:
        """True if there are both texts and images left, and one chunk can hold all of them.

        Images are taken after the last text, so all of them are left while there are texts.
        """
        if not (self._texts and self._with_images) or self._cost_left > max_cost:
            return False
        return pixels_in(self._documents, sent_bytes) <= self._chunk_bytes

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

    def _take_images(self, max_cost: int, sent_bytes: PictureBytes) -> Documents:
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
            size = sum(map(sent_bytes, pictures.values()))
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
    async def hold(self, size: int) -> AsyncIterator[HeldPixels]:
        """Wait until `size` bytes are free, and hold them while the context lasts."""
        held = HeldPixels(self)
        try:
            await held.change(size)
            yield held
        finally:
            self._used -= held.size
            async with self._changed:
                self._changed.notify_all()

    async def move(self, held: HeldPixels, size: int) -> None:
        """Give the bytes of a chunk back, and wait until `size` bytes are free for it."""
        async with self._changed:
            self._used -= held.size
            held.size = 0
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._has_room(size))
            self._used += size
            held.size = size

    def _has_room(self, size: int) -> bool:
        return not self._used or not size or self._used + size <= self.max_bytes


class HeldPixels:
    """The bytes that one chunk holds of a budget."""

    def __init__(self, budget: PixelBudget) -> None:
        self.size = 0
        self._budget = budget

    async def change(self, size: int) -> None:
        """Hold `size` bytes instead, once they are free. The chunk must have let its pixels go:
        no chunk waits with bytes that another one waits for."""
        if size != self.size:
            await self._budget.move(self, size)


class SharedPictures:
    """Pictures that several calls of a request have: each is decoded once and kept while the
    request is scored. They are those of the query, and of those that several documents have the
    most frequent ones first, up to `max_bytes` of pixels."""

    def __init__(
        self,
        query: Content,
        documents: Iterable[Content],
        rule: ImageRule | None,
        max_bytes: int,
    ) -> None:
        pictures: dict[bytes, Picture] = {}
        counts: Counter[bytes] = Counter()
        for content in documents:
            in_content = {picture.digest: picture for picture in pictures_in(content)}
            pictures |= in_content
            counts.update(in_content.keys())

        self._decoded: dict[bytes, asyncio.Future[Pixels | RerankError] | None] = {}
        for picture in pictures_in(query):
            self._decoded[picture.digest] = None
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
        wanted = {picture.digest: picture for picture in pictures}
        pending = self._pending(wanted)
        new = [picture for digest, picture in wanted.items() if digest not in pending]

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
