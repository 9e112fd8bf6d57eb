"""The sample of requests that are compared: a pure function of a seed and of a request.

Depends on bytes alone. Invariant: equal seeds, shares and requests give equal decisions, in every
gateway and at any time.
"""

from __future__ import annotations

import hashlib

from service.gateway.media.content import framed

_RANGE = 2**64


def is_sampled(seed: int, share: float, request_id: str, query: bytes) -> bool:
    """True for about `share` of requests; `query` identifies the content of a request's query,
    since the lines of a stream have one request id."""
    digest = hashlib.sha256(framed(b"%d" % seed, request_id.encode(), query)).digest()
    return int.from_bytes(digest[:8], "big") < share * _RANGE
