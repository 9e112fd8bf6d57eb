"""Data URLs and base64: images written as text.

The module depends on RFC 2397 and on the two alphabets of base64, on no image format. Invariant: a
URL's media type decides only whether a text has an image in it, and never how its bytes are read.
"""

from __future__ import annotations

import base64
import binascii
import re

MAX_LABEL = 512
"""Characters before a data URL's comma, which are a media type and its parameters."""
_PAYLOAD = re.compile(r";base64,[a-z0-9+/_%\\-]{32}")
"""In lower case. The smallest image has 40 digits; a text about data URLs quotes fewer."""
_IMAGE_LABEL = re.compile(r"data:image\\*/[^,\n\"'<>]+")
"""PHP writes JSON with `\\/` for each slash."""
_TYPE_AND_PARAMETERS = r"[a-z0-9.+/-]{0,128}(?:;\s?[^;,\s]{0,256}){0,8}"
_DATA_URL = re.compile(
    rf"\s*data:{_TYPE_AND_PARAMETERS};base64,[a-z0-9+/_=\s-]*",
    re.IGNORECASE,
)
_URL_SAFE = str.maketrans("-_", "+/")


class NotBase64(ValueError):
    """Text that is not base64, in either alphabet."""


def is_data_url(text: str) -> bool:
    """True if a text is one data URL in base64, of any type."""
    return _DATA_URL.fullmatch(text) is not None


def holds_picture(text: str) -> bool:
    """True if a text has an image in it as a data URL."""
    # nearly every text ends here, and cheaply: the search for one character takes the least
    if ";" not in text or "64," not in text:
        return False

    lowered = text.lower()
    for payload in _PAYLOAD.finditer(lowered):
        end = payload.start()
        start = lowered.rfind("data:image", max(0, end - MAX_LABEL), end)
        if start >= 0 and _IMAGE_LABEL.fullmatch(lowered, start, end):
            return True
    return False


def base64_of(source: str) -> str | None:
    """The base64 of a data URL of any type; None for a data URL in another encoding.

    A source that is no data URL is taken as base64.
    """
    if not source[:64].lstrip().lower().startswith("data:"):
        return source

    comma = source.find(",", 0, MAX_LABEL)
    if comma < 0 or not source[:comma].rstrip().lower().endswith(";base64"):
        return None
    return source[comma + 1 :]


def decode(encoded: str) -> bytes:
    """The bytes of base64 in either alphabet, with or without padding and whitespace.

    Raises `NotBase64`.
    """
    digits = "".join(encoded.split()).rstrip("=")
    if "-" in digits or "_" in digits:
        digits = digits.translate(_URL_SAFE)

    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise NotBase64 from None
