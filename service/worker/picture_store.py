"""Decoded pictures that a worker keeps, so that gateways need not send them again.

Depends on calls, not on engines or HTTP. A picture is kept by cache salt, digest and size, so that
no tenant uses what another one sent. Invariant: the pixels that are kept take at most `max_bytes`;
a picture of a call that is in progress is not dropped.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec import structs

from service.observability.engine_metrics import CALL_PICTURES
from service.wire import MISSING_IMAGE, Pixels, Refused, ScoreCall, Scored, WorkerInfo

MAX_PICTURES = 2**16

Key = tuple[str, bytes, int, int]
Verdict = Scored | Refused | None


@dataclass(frozen=True, slots=True)
class CompletedCall:
    """A call whose pictures all have pixels, with those documents whose pictures are there.

    `documents` are their indexes in the call that was sent, which had `sent` documents.
    """

    call: ScoreCall
    documents: Sequence[int]
    sent: int

    def verdicts(self, pairs: Sequence[Verdict]) -> list[Verdict]:
        """One verdict for each document that was sent, from those on `documents`: the others lack
        a picture."""
        verdicts: list[Verdict] = [Refused(MISSING_IMAGE)] * self.sent
        for index, pair in zip(self.documents, pairs, strict=True):
            verdicts[index] = pair
        return verdicts


class PictureStore:
    """Keeps at most `max_bytes` of pixels and `MAX_PICTURES` pictures, those that were used last;
    with 0 bytes it keeps none.

    `name` tells this store from all others, those of earlier starts of the worker included.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.name = secrets.token_hex(16) if max_bytes else ""
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        """The picture that was used last comes last."""
        self._in_use: Counter[Key] = Counter()
        self._bytes = 0
        self._bytes_in_use = 0

    def described(self, model: WorkerInfo) -> WorkerInfo:
        """The description of a model that this worker serves, with the store's name and bound."""
        if model.images is None:
            return model
        return structs.replace(model, picture_store=self.name, picture_store_bytes=self.max_bytes)

    @contextmanager
    def completed(self, call: ScoreCall) -> Iterator[CompletedCall]:
        """Keep the pixels that a call brings, and add those that it leaves out.

        The pictures that are used stay while the context lasts.
        """
        used: list[Key] = []
        try:
            yield self._complete(call, used)
        finally:
            for key in used:
                self._release(key)

    def _complete(self, call: ScoreCall, used: list[Key]) -> CompletedCall:
        images = list(call.images)
        missing: set[int] = set()
        for index, image in enumerate(call.images):
            if image.rgb:
                CALL_PICTURES.labels("sent").inc()
                continue

            key = _key(call, image)
            if key in self._kept:
                CALL_PICTURES.labels("kept").inc()
                used.append(self._use(key))
                images[index] = structs.replace(image, rgb=self._kept[key])
            else:
                CALL_PICTURES.labels("missing").inc()
                missing.add(index)

        # after the others are in use, so that none of them makes room
        self._keep(call, used)

        documents: list[int] = []
        if missing.isdisjoint(call.query):
            for index, document in enumerate(call.documents):
                if missing.isdisjoint(document):
                    documents.append(index)
        scorable = [call.documents[index] for index in documents]
        completed = structs.replace(call, images=images, documents=scorable)
        return CompletedCall(completed, documents, len(call.documents))

    def _keep(self, call: ScoreCall, used: list[Key]) -> None:
        """Keep the pixels that a call brings, and move all its pictures behind the others, in the
        order of the call, as gateways assume."""
        for image in call.images:
            key = _key(call, image)
            if image.rgb and self._add(key, image.rgb):
                used.append(self._use(key))

        for image in call.images:
            key = _key(call, image)
            if key in self._kept:
                self._kept.move_to_end(key)

    def _add(self, key: Key, rgb: bytes) -> bool:
        """Keep a picture, if there is room; the ones that were not used for longest make it."""
        if key in self._kept:
            return True
        if self._bytes_in_use + len(rgb) > self.max_bytes or len(self._in_use) >= MAX_PICTURES:
            return False

        while self._bytes + len(rgb) > self.max_bytes or len(self._kept) >= MAX_PICTURES:
            oldest = next(iter(self._kept))
            if oldest in self._in_use:
                self._kept.move_to_end(oldest)
            else:
                self._bytes -= len(self._kept.pop(oldest))
        self._kept[key] = rgb
        self._bytes += len(rgb)
        return True

    def _use(self, key: Key) -> Key:
        """Count one more use of a picture that is kept."""
        if key not in self._in_use:
            self._bytes_in_use += len(self._kept[key])
        self._in_use[key] += 1
        return key

    def _release(self, key: Key) -> None:
        self._in_use[key] -= 1
        if not self._in_use[key]:
            del self._in_use[key]
            self._bytes_in_use -= len(self._kept[key])


def _key(call: ScoreCall, image: Pixels) -> Key:
    return call.cache_salt, image.digest, image.width, image.height
