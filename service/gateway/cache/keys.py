"""Keys of the score cache: one for each pair of a query and a document.

The module depends on contexts and contents, on no tier. Invariant: a key is the HMAC of a document
under the key of its scoring context, itself an HMAC over length-framed fields, so two pairs share a
key only if everything that decides their score is equal.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from importlib.metadata import version

from service.gateway.domain import ScoringContext
from service.gateway.media.content import Content, framed, identity

SCHEMA = b"gmr-rerank score 2"
"""To be increased when the same fields come to mean another score, as after a change of the way
images are resized."""
DECODER = f"pillow {version('pillow')}".encode()
"""The library that decodes images. The gateway decodes them, so a model's digest does not cover
it."""
TAG_BYTES = 4
"""The first bytes of a key. All keys of a context share them, so that a tier can store those keys
together."""


def pair_keys(
    secret: bytes,
    context: ScoringContext,
    documents: Iterable[Content],
    *,
    decoder: bytes = DECODER,
) -> list[bytes]:
    """The key of each document in a scoring context.

    The model's digest stands for weights, template, limits, dtype and engine; the other fields are
    what else decides a score.
    """
    model, rule = context.model, context.model.images
    resizing = b""
    if rule is not None:
        resizing = b"%d %d %d " % (rule.cell, rule.min_pixels, rule.max_pixels) + decoder

    fields = (
        SCHEMA,
        resizing,
        model.digest.encode(),
        context.cache_salt.encode(),
        context.instruction.encode(),
        identity(context.query),
        bytes([context.truncate]),
    )
    context_key = hmac.digest(secret, framed(*fields), "sha256")
    keyed = hmac.new(context_key, digestmod="sha256")

    # no document is empty, so the tag reveals nothing about any key
    tag = keyed.digest()[:TAG_BYTES]
    keys: list[bytes] = []
    for document in documents:
        code = keyed.copy()  # several times faster than to begin with the key each time
        code.update(identity(document))
        keys.append(tag + code.digest())
    return keys
