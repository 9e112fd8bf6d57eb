"""The digest of a dataset, from all that decides a score of a reranker.

Does not depend on layouts. Invariant: the order of judgements in a file, and of a library's groups,
does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec


def dataset_digest(
    origin: Sequence[str | bool | None],
    queries: Sequence[str],
    judgements: Mapping[str, Mapping[str, int]],
    candidates: Mapping[str, Sequence[str]] | None,
) -> str:
    """`sha256:` and 64 digits. `origin` is the identity of items and instructions: their own
    digests, or a revision that they come from."""
    digest = hashlib.sha256(msgspec.msgpack.encode((*origin, candidates is not None)))
    for query in queries:
        ranked = None if candidates is None else candidates.get(query, ())
        judged = sorted(judgements[query].items())
        digest.update(msgspec.msgpack.encode((query, judged, ranked)))
    return f"sha256:{digest.hexdigest()}"
