"""A request's items read into contents, in short steps, so that its deadline and its client's
disconnect end the work; a few short texts at once.

The module depends on the order of items and on the limit of a request's pixels; `media` reads each
item. Invariant: every document has a content or an error, and no step in a thread takes much longer
than `STEP_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import anyio.to_thread

from service.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    Loc,
    Problem,
    RerankError,
    UnknownImage,
)
from service.gateway.domain import RerankQuery
from service.gateway.media.content import Content, Picture
from service.gateway.media.fetching import Fetched
from service.gateway.media.reader import Media
from service.items import Item

STEP_SECONDS = 0.05
"""A step ends with the item that it is at after this time."""
_END = object()


class RequestContents:
    """The contents of one request's queries and documents, and the errors of documents without one.

    `queries` has the query of each document in `documents`, by index. They are there once `read`
    has returned.
    """

    def __init__(self, media: Media, query: RerankQuery, fetched: Fetched) -> None:
        self._media = media
        self._fetched = fetched
        self._seen: set[bytes] = set()
        self._pixels_left = media.limits.max_request_pixels
        self._is_short = query.is_short()
        self._items = self._read(query)
        self.queries: dict[int, Content] = {}
        self.documents: dict[int, Content] = {}
        self.errors: dict[int, RerankError] = {}

    async def read(self, deadline: float) -> None:
        """Read every item.

        Raises the error of a query for all documents, and `DeadlineExceeded` where a step ends
        after `deadline` (event loop time).
        """
        if self._is_short:
            for _ in self._items:
                pass
            return

        while await anyio.to_thread.run_sync(self._step):
            if asyncio.get_running_loop().time() >= deadline:
                raise DeadlineExceeded

    def _step(self) -> bool:
        """Read items for `STEP_SECONDS`, and return whether there may be more."""
        started = time.monotonic()
        while time.monotonic() - started <= STEP_SECONDS:
            if next(self._items, _END) is _END:
                return False
        return True

    def _read(self, query: RerankQuery) -> Iterator[None]:
        """Read an item or a pair before each yield, a query for all documents first."""
        shared: Content | None = None
        if isinstance(query.query, Item):
            shared = self._content(query.query, ("query",))
            yield

        for index, document in enumerate(query.documents):
            if isinstance(document, RerankError):
                self.errors[index] = document

        for index, own_query, document in query.pairs():
            try:
                read = shared
                if read is None:
                    read = self._content(own_query, ("queries", index))
                self.documents[index] = self._content(document, ("documents", index))
                self.queries[index] = read
            except RerankError as error:
                self.errors[index] = error.with_traceback(None)
            yield

    def _content(self, item: Item, loc: Loc) -> Content:
        """An item's content.

        Raises `ImageTooLarge` where the request's distinct images have too many pixels together.
        """
        content = self._media.resolve(item, loc, self._fetched)
        if item.is_text:
            return content

        new: dict[bytes, Picture] = {}
        for part in content:
            if isinstance(part, Picture) and part.digest not in self._seen:
                new[part.digest] = part

        pixels = sum(picture.pixels for picture in new.values())
        if pixels > self._pixels_left:
            most = self._media.limits.max_request_pixels
            raise ImageTooLarge(
                f"The images of this request have more than {most} pixels together."
            ).at(loc)

        self._pixels_left -= pixels
        self._seen.update(new)
        return content


def expect_known_images(query: RerankQuery, fetched: Fetched) -> None:
    """Raise `UnknownImage` with every unknown image of a request, so that a client can send all of
    them at once.

    A query that skips errors has an entry for each such document instead, unless the image is that
    of the query for all documents.
    """
    unknown = {source for source, found in fetched.items() if isinstance(found, UnknownImage)}
    if not unknown:
        return

    problems: list[Problem] = []
    for loc, item in _located(query):
        for part in item.parts():
            if part.image in unknown:
                problems.append(Problem((*loc, *part.loc), UnknownImage.message))

    of_all = problems[0].loc[0] == "query"
    if of_all or not query.skip_errors:
        raise UnknownImage(problems=problems)


def _located(query: RerankQuery) -> Iterator[tuple[Loc, Item]]:
    """The items of a request that could be read, with their locations, queries first."""
    if isinstance(query.query, Item):
        yield ("query",), query.query
    else:
        for index, own_query in enumerate(query.query):
            if isinstance(own_query, Item):
                yield ("queries", index), own_query

    for index, document in enumerate(query.documents):
        if isinstance(document, Item):
            yield ("documents", index), document
