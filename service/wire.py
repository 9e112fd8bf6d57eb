"""What gateway and worker say to each other: msgspec structs, sent as MessagePack.

Pixels travel as bytes, which JSON would not carry. The module knows shapes, no HTTP and no models.
Invariant: a `ScoreReply` has one entry a document of its `ScoreCall`, in order.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

WireItem = list[str | int]
"""Texts as they are, images by their place in the call's `images`."""


class Pixels(msgspec.Struct, array_like=True, frozen=True):
    """A decoded image of the size the model reads: rows of RGB bytes. `digest` is the SHA-256 of
    the bytes it was sent as."""

    digest: bytes
    width: int
    height: int
    rgb: bytes


class ImageRule(msgspec.Struct, frozen=True):
    """How a model wants its images resized: sides are multiples of `cell`, the area is between the
    bounds, in pixels."""

    cell: int
    min_pixels: int
    max_pixels: int


MAX_CALL_DOCUMENTS = 100_000
MAX_CALL_IMAGES = 100_000
"""Bounds of one call to a worker, whatever a gateway's own limits are."""


class ScoreCall(msgspec.Struct, frozen=True):
    """Score one query against documents. Each distinct image travels once."""

    model: str
    instruction: str | None
    query: WireItem
    documents: list[WireItem]
    images: list[Pixels]
    truncate: bool
    cache_salt: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """Calls with different salts share nothing in a worker's prefix cache."""


Logit = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Scored(msgspec.Struct, array_like=True, tag=0, frozen=True):
    """A pair's score, and what it cost."""

    logit: Logit
    prompt_tokens: Count
    image_tokens: Count
    truncated: bool
    reused_tokens: Count = 0
    """Prompt tokens that the engine took from its prefix cache."""


class Refused(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """A pair that cannot be scored: an error code of this service.

    `part` says what of the question is too long by itself, so that no document can be scored with
    it; empty where that is not the cause. Workers before it send none.
    """

    code: str
    part: Annotated[str, msgspec.Meta(max_length=32)] = ""


class ScoreReply(msgspec.Struct, frozen=True):
    """One entry a document, in order; None is a pair that time did not suffice for."""

    digest: str
    pairs: list[Scored | Refused | None]
    timings: dict[str, float]


class Sigmoid(msgspec.Struct, frozen=True):
    """From a raw score to a probability: sigmoid((score - shift) / scale)."""

    scale: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    shift: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = 0.0

    def log_odds(self, score: float) -> float:
        """The logarithm of the odds of the probability."""
        return (score - self.shift) / self.scale

    def __call__(self, score: float) -> float:
        """The probability, without overflow."""
        value = self.log_odds(score)
        small = math.exp(-abs(value))
        return 1 / (1 + small) if value >= 0 else small / (1 + small)


class WorkerInfo(msgspec.Struct, frozen=True):
    """A model that a ready worker serves. A worker's `/info` lists them, the default one first.

    `digest` stands for all that decides a score: files, limits, engine, dtype.
    """

    model: str
    digest: str
    family: str
    template: str
    default_instruction: str
    max_pair_tokens: int
    images: ImageRule | None
    """None: the model reads text only."""
    engine: str
    dtype: str
    device: str
    version: str = ""
    """The digest that a registry lists the checkpoint or adapter under; empty where it has no
    manifest."""
    read_out: str = ""
    """How the last hidden state becomes the raw score, such as "yes - no"; empty from a worker that
    is older than this field."""
    probability: Sigmoid = Sigmoid()
    cacheable_side: Literal["query", "document", "none"] = "query"
    """The side that a prompt begins with, so that its keys and values serve several pairs."""
    golden_pairs: int = 0
    """How many golden pairs were scored before it turned ready; 0: it has none, and that check was
    skipped."""


MSGPACK = "application/msgpack"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec's decoders raise for bytes that are not the message that was expected."""
TIMEOUT_HEADER = "x-rerank-timeout-ms"
"""How much time a worker has from the moment it reads the call; durations need no common clock."""
REQUEST_ID_HEADER = "x-request-id"
