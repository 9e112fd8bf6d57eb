"""Documents in runs that are decoded and sent to a worker together, and the images that several of
them show.

The module knows costs and sizes of pixels, no worker and no decoder. Invariant: every document is
in one chunk; a chunk of more than one document costs no more, and has no more pixels, than it may.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from service.errors import RerankError
from service.gateway.costs import pixel_bytes
from service.gateway.media.content import Content, Picture
from service.wire import ImageRule, Pixels

FIRST_CHUNK_BYTES = 2 * 2**20
"""Pixels of a share's first chunk: few, so that its worker has work early. Each chunk after it is
twice as large."""

Documents = Mapping[bytes, Content]
Images = dict[bytes, Pixels | RerankError]


def pictures_in(*contents: Content) -> Iterable[Picture]:
    """The pictures of some contents, in order."""
    return (part for content in contents for part in content if isinstance(part, Picture))


def pixels_in(documents: Documents, rule: ImageRule) -> int:
    """The bytes that the distinct pictures of some documents take when they are decoded."""
    distinct = {picture.digest: picture for picture in pictures_in(*documents.values())}
    return sum(pixel_bytes(picture, rule) for picture in distinct.values())


class Chunks:
    """A share's documents: first those without images, the cheapest first, then the others, those
    of one image together.

    A chunk's pixels take at most `most` bytes, the first ones' less.
    """

    def __init__(
        self, documents: Documents, costs: Mapping[bytes, int], rule: ImageRule, most: int
    ) -> None:
        self._documents = documents
        self._costs = costs
        self._rule = rule
        self._most = most
        self._bytes = min(FIRST_CHUNK_BYTES, most)
        texts = [key for key, content in documents.items() if not any(pictures_in(content))]
        self._texts = deque(sorted(texts, key=costs.__getitem__))
        self._shown = deque(self._grouped(set(texts)))

    def take(self, room: int) -> Documents:
        """The next chunk, which costs `room` at most, or has one document; empty when there is no
        more."""
        if self._texts:
            return self._take_texts(room)
        return self._take_shown(room)

    def _take_texts(self, room: int) -> Documents:
        chunk: dict[bytes, Content] = {}
        while self._texts and (not chunk or room >= self._costs[self._texts[0]]):
            key = self._texts.popleft()
            chunk[key] = self._documents[key]
            room -= self._costs[key]
        return chunk

    def _take_shown(self, room: int) -> Documents:
        chunk: dict[bytes, Content] = {}
        held: set[bytes] = set()
        left = self._bytes
        while self._shown:
            key = self._shown[0]
            new = {
                picture.digest: picture
                for picture in pictures_in(self._documents[key])
                if picture.digest not in held
            }
            needed = sum(pixel_bytes(picture, self._rule) for picture in new.values())
            if chunk and (self._costs[key] > room or needed > left):
                break
            chunk[key] = self._documents[self._shown.popleft()]
            held |= new.keys()
            room -= self._costs[key]
            left -= needed
        self._bytes = min(2 * self._bytes, self._most)
        return chunk

    def _grouped(self, texts: set[bytes]) -> list[bytes]:
        """The documents with images, each beside those that begin with the same one."""
        groups: dict[bytes, list[bytes]] = {}
        for key, content in self._documents.items():
            if key not in texts:
                first = next(iter(pictures_in(content)))
                groups.setdefault(first.digest, []).append(key)
        return [key for group in groups.values() for key in group]


class PixelRoom:
    """Room for `most` bytes of pixels; what is larger than that enters when nothing else is
    inside."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, size: int) -> AsyncIterator[None]:
        """Wait for room, and hold it while the context lasts."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._used or not size or self._used + size <= self.most
            )
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            async with self._changed:
                self._changed.notify_all()


class SharedPictures:
    """Images that several documents show: decoded once, and kept, the most frequent ones first, up
    to `most` bytes of pixels."""

    def __init__(self, documents: Iterable[Content], rule: ImageRule, most: int) -> None:
        pictures = {
            picture.digest: picture for content in documents for picture in pictures_in(content)
        }
        counts = Counter(
            digest
            for content in documents
            for digest in {picture.digest for picture in pictures_in(content)}
        )
        self._decoded: dict[bytes, asyncio.Future[Pixels | RerankError] | None] = {}
        for digest, count in counts.most_common():
            most -= pixel_bytes(pictures[digest], rule)
            if count < 2 or most < 0:
                break
            self._decoded[digest] = None

    async def decoded(
        self, pictures: Iterable[Picture], decode: Callable[[list[Picture]], Awaitable[Images]]
    ) -> Images:
        """The pixels of some pictures, by digest; `decode` is asked for those that are not there
        and not on their way."""
        wanted = {picture.digest: picture for picture in pictures}
        futures = {digest: future for digest in wanted if (future := self._decoded.get(digest))}
        new = [picture for digest, picture in wanted.items() if digest not in futures]
        promised = {
            each.digest: asyncio.get_running_loop().create_future()
            for each in new
            if each.digest in self._decoded
        }
        self._decoded.update(promised)
        try:
            images = await decode(new) if new else {}
            for digest, future in promised.items():
                future.set_result(images[digest])
        finally:
            for future in promised.values():
                future.cancel()  # no effect on one that has its result
        for digest, future in futures.items():
            images[digest] = await asyncio.shield(future)
        return images
