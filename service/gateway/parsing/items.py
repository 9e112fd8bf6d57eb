"""A request's items into contents, a moment at a time, so that its deadline and its client's
leaving end the work.

The module knows the order of items and the bound on a request's pixels; what an item may hold is
`media`'s business. Invariant: every document has a content or an error, and no step off the loop
takes much longer than `STEP_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import anyio.to_thread

from service.api import Item
from service.errors import DeadlineExceeded, ImageTooLarge, Loc, RerankError
from service.gateway.chunks import pictures_in
from service.gateway.media.content import Content
from service.gateway.media.fetching import Fetched
from service.gateway.media.reader import Media

STEP_SECONDS = 0.05
"""After so long a step ends with the item that it is at."""


class Reading:
    """One request's query and documents; read them with `run`."""

    def __init__(
        self, media: Media, query: Item, documents: Sequence[Item | RerankError], fetched: Fetched
    ) -> None:
        self._media = media
        self._fetched = fetched
        self._seen: set[bytes] = set()
        self._pixels_left = media.limits.max_request_pixels
        self._steps = self._read(query, documents)
        self.query: Content = ()
        self.documents: dict[int, Content] = {}
        self.errors: dict[int, RerankError] = {}

    async def run(self, until: float) -> None:
        """Read everything; raises the query's error, and `DeadlineExceeded` where a step ends after
        `until` (loop time)."""
        while await anyio.to_thread.run_sync(self._step):
            if asyncio.get_running_loop().time() >= until:
                raise DeadlineExceeded

    def _step(self) -> bool:
        """Read some items; gives whether there are more."""
        begun = time.monotonic()
        return any(time.monotonic() - begun > STEP_SECONDS for _ in self._steps)

    def _read(self, query: Item, documents: Sequence[Item | RerankError]) -> Iterator[None]:
        self.query = self._content(query, ("query",))
        yield
        for index, document in enumerate(documents):
            try:
                if isinstance(document, RerankError):
                    raise document
                self.documents[index] = self._content(document, ("documents", index))
            except RerankError as error:
                self.errors[index] = error
            yield

    def _content(self, item: Item, loc: Loc) -> Content:
        """An item's content, within what the request's images may have of pixels all together;
        equal ones count once."""
        content = self._media.resolve(item, loc, self._fetched)
        new = {
            picture.digest: picture
            for picture in pictures_in(content)
            if picture.digest not in self._seen
        }
        pixels = sum(picture.pixels for picture in new.values())
        if pixels > self._pixels_left:
            most = self._media.limits.max_request_pixels
            raise ImageTooLarge(
                f"The images of this request have more than {most} pixels together."
            ).at(loc)
        self._pixels_left -= pixels
        self._seen |= new.keys()
        return content
