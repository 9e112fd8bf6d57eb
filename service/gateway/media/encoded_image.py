"""An encoded image that was checked: its bytes, their digest, and its header.

The module depends on headers and on the limits of an image, on no item and no decoder. Invariant:
`digest` is the SHA-256 of `data`, and the image is within the limits that it was checked against.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from service.errors import ImageTooLarge, InvalidImage
from service.gateway.media.headers import Header, read_header
from service.limits import Limits


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of a PNG, JPEG or WebP, their SHA-256 digest, and what its header says."""

    data: bytes
    digest: bytes
    header: Header


def checked_image(data: bytes, limits: Limits) -> EncodedImage:
    """The image in some bytes, by its header alone.

    Raises `InvalidImage` and `ImageTooLarge`. It takes a millisecond or two for each megabyte.
    """
    check_size(len(data), limits)
    header = read_header(data)
    _check_sides(header, limits)
    return EncodedImage(data, hashlib.sha256(data).digest(), header)


def check_size(size: int, limits: Limits) -> None:
    """Raise `ImageTooLarge` for an encoded image of more bytes than the limit."""
    if size > limits.max_image_bytes:
        raise ImageTooLarge(f"The image is larger than {limits.max_image_bytes} bytes.")


def _check_sides(header: Header, limits: Limits) -> None:
    shorter, longer = sorted(header.size)
    if shorter * longer > limits.max_image_pixels:
        raise ImageTooLarge(f"The image has more than {limits.max_image_pixels} pixels.")
    if shorter < limits.min_image_side:
        message = f"The image's sides must be at least {limits.min_image_side} pixels."
        raise InvalidImage(message)
    if longer > limits.max_image_aspect * shorter:
        message = f"The image's sides must not differ more than {limits.max_image_aspect} times."
        raise InvalidImage(message)
