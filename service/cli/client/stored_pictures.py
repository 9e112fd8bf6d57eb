"""Pictures that are put before the requests that refer to them, so that each travels once.

Depends on calls to the service, not on what is ranked. Invariant: a picture that the service does
not store, for whatever reason, is sent in its request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus

from service.cli.client.calls import Refused, Service

PUT_FROM_BYTES = 2**20
"""Pictures of a request from this size on, together, are put before it: fewer are not worth two
more calls."""
PUT_BYTES = 8 * 2**20
"""Bytes of pictures above which a further one is put by a call of its own."""
MAX_PUTS = 2
"""Puts of a batch's pictures before they are sent in its requests."""
UNKNOWN = "unknown_image"
_NOT_STORED = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)
"""Statuses of services, or of proxies before them, that store no pictures."""
_REFERENCE = re.compile(rb'"image": ?"(sha256:[0-9a-f]{64})"')

Pictures = Mapping[str, bytes]
"""The bytes of pictures by the references that stand for them in a request."""


def reference_of(picture: bytes) -> str:
    """The reference to a picture, for an item's `image` once the picture was put."""
    return f"sha256:{hashlib.sha256(picture).hexdigest()}"


def inlined(content: bytes, pictures: Pictures) -> bytes:
    """A part of a request as JSON, with its pictures as base64 in the place of references."""

    def encoded(match: re.Match[bytes]) -> bytes:
        picture = pictures.get(match[1].decode())
        return match[0] if picture is None else b'"image":"%s"' % base64.b64encode(picture)

    return _REFERENCE.sub(encoded, content)


def references_in(content: bytes) -> list[str]:
    """The references to pictures in a part of a request as JSON."""
    return [match.decode() for match in _REFERENCE.findall(content)]


def encoded_size(pictures: Pictures) -> int:
    """The size of pictures as base64."""
    return sum(4 * len(picture) // 3 for picture in pictures.values())


async def put_missing(service: Service, pictures: Pictures, *, at_once: int) -> bool:
    """Put the pictures that the service does not have, up to `at_once` by one call.

    False where it stores none. Raises `CannotCall`.
    """
    try:
        missing = await service.missing_images(list(pictures))
        for part in _parts({name: pictures[name] for name in missing}, at_once):
            await service.put_images(part)
    except Refused as refusal:
        if refusal.status in _NOT_STORED:
            return False
        raise
    return True


def _parts(pictures: Pictures, at_once: int) -> Iterator[list[bytes]]:
    """Pictures in parts of a bounded number and of about `PUT_BYTES`."""
    part: list[bytes] = []
    size = 0
    for picture in pictures.values():
        if part and (len(part) == at_once or size + len(picture) > PUT_BYTES):
            yield part
            part, size = [], 0
        part.append(picture)
        size += len(picture)
    if part:
        yield part
