"""Messages between gateway and worker: msgspec structs, sent as MessagePack.

Pixels travel as bytes, which JSON cannot carry. Depends on neither HTTP nor models. Invariant: a
`ScoreReply` has one entry for each document of its `ScoreCall`, in order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Annotated, Literal

import msgspec

WireItem = list[str | int]
"""One query or document: texts, and images by their index in the call's `images`."""


class Pixels(msgspec.Struct, array_like=True, frozen=True):
    """A decoded image of the size that the model reads, as rows of RGB bytes.

    `digest` is the SHA-256 of the encoded image that the client sent. `rgb` is empty where the
    worker keeps the picture from an earlier call (`WorkerInfo.picture_store`).
    """

    digest: bytes
    width: int
    height: int
    rgb: bytes


class ImageRule(msgspec.Struct, frozen=True):
    """The sizes of images that a model reads, in pixels.

    Sides are multiples of `cell`, and the area is within the bounds.
    """

    cell: int
    min_pixels: int
    max_pixels: int


MAX_CALL_DOCUMENTS = 100_000
MAX_CALL_IMAGES = 100_000
"""Bounds of one call to a worker, independent of a gateway's own limits."""


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
    """A pair's raw score, and its cost."""

    logit: Logit
    prompt_tokens: Count
    image_tokens: Count
    truncated: bool
    reused_tokens: Count = 0
    """Prompt tokens that the engine took from its prefix cache."""
    completion_tokens: Count = 0
    """Tokens that the engine wrote for a score that is text."""


MISSING_IMAGE = "missing_image"
"""The code of a pair that has a picture without pixels which the worker does not keep. The gateway
sends the pixels then; no client sees it."""


class Refused(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """A pair that cannot be scored, with an error code of this service, or `MISSING_IMAGE`.

    `part` names a part of the question (instruction or query) that is too long by itself, so that
    no document can be scored with it. It is empty for any other cause, and from workers that are
    older than this field.
    """

    code: str
    part: Annotated[str, msgspec.Meta(max_length=32)] = ""


class ScoreReply(msgspec.Struct, frozen=True):
    """One entry for each document, in order; None for a pair that the deadline left unscored."""

    digest: str
    pairs: list[Scored | Refused | None]
    timings: dict[str, float]


class Transform(msgspec.Struct, frozen=True):
    """The function from a raw score to the relevance score of answers.

    It is (score - shift) / scale on a linear curve, and the sigmoid of that on a sigmoid curve.
    """

    scale: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    shift: Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)] = 0.0
    curve: Literal["sigmoid", "linear"] = "sigmoid"
    name: Annotated[str, msgspec.Meta(max_length=128)] = "sigmoid"
    """The transform as manifests state it, such as `sigmoid(x - 2.65)`."""

    def log_odds(self, score: float) -> float:
        """The value on the line: of a sigmoid curve, the logarithm of the odds."""
        return (score - self.shift) / self.scale

    def __call__(self, score: float) -> float:
        """The relevance score, without overflow."""
        value = self.log_odds(score)
        if self.curve == "linear":
            return value
        return _sigmoid(value)


def _sigmoid(value: float) -> float:
    small = math.exp(-abs(value))
    return 1 / (1 + small) if value >= 0 else small / (1 + small)


_Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
MAX_KNOTS = 256
MAX_CALIBRATIONS = 32


class PlattMap(msgspec.Struct, frozen=True, tag="platt"):
    """The sigmoid of slope * score + intercept."""

    slope: Annotated[float, msgspec.Meta(ge=0, le=1e6)]
    intercept: Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]

    def __call__(self, score: float) -> float:
        """The probability of a raw score, without overflow."""
        return _sigmoid(self.slope * score + self.intercept)


class IsotonicMap(msgspec.Struct, frozen=True, tag="isotonic"):
    """Straight lines between knots with rising scores, and constant beyond them."""

    scores: Annotated[tuple[_Finite, ...], msgspec.Meta(min_length=1, max_length=MAX_KNOTS)]
    probabilities: Annotated[tuple[_Share, ...], msgspec.Meta(min_length=1, max_length=MAX_KNOTS)]

    def __post_init__(self) -> None:
        """Raise `ValueError`, an error of decoding to msgspec, where a knot lacks one of its two
        numbers."""
        if len(self.scores) != len(self.probabilities):
            raise ValueError("A knot has a score and a probability.")

    def __call__(self, score: float) -> float:
        """The probability of a raw score."""
        above = bisect_right(self.scores, score)
        if above == 0:
            return self.probabilities[0]
        low = self.probabilities[above - 1]
        if above == len(self.scores):
            return low

        high = self.probabilities[above]
        start, end = self.scores[above - 1], self.scores[above]
        # rounding never leads beyond the knots, so that the map does not fall anywhere
        return min(low + (high - low) * ((score - start) / (end - start)), high)


class Calibration(msgspec.Struct, frozen=True):
    """A map from raw scores of one instruction to probabilities, and where it comes from.

    `rows` is the digest of the judged rows that it was fitted to, `pairs` their number, and
    `relevant_share` the share of relevant ones. `ece` is the expected calibration error on
    held-out pairs, within `ece_low` and `ece_high` at 95 %.
    """

    instruction: Annotated[str, msgspec.Meta(max_length=10_000)]
    map: PlattMap | IsotonicMap
    rows: Annotated[str, msgspec.Meta(max_length=64)]
    pairs: Annotated[int, msgspec.Meta(ge=0, le=2**40)]
    relevant_share: _Share
    ece: _Share
    ece_low: _Share
    ece_high: _Share


class SideRule(msgspec.Struct, frozen=True):
    """The parts that a model reads on one side of a pair."""

    texts: bool = True
    max_images: int | None = None
    """None: any number, as far as the model reads images."""
    mixed: bool = True
    """Text and images at once."""


class WorkerInfo(msgspec.Struct, frozen=True):
    """A model that a ready worker serves. A worker's `/info` lists them, the default one first.

    `digest` covers everything that decides a score: files, limits, engine and dtype.
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
    """The name of the read-out, such as "yes - no"; empty from a worker that is older than this
    field."""
    probability: Transform = Transform()
    cacheable_side: Literal["query", "document", "none"] = "query"
    """The side that a prompt begins with, so that pairs can share its keys and values."""
    takes_instruction: bool = True
    """False where the prompt has no place for an instruction."""
    query_side: SideRule = SideRule()
    document_side: SideRule = SideRule()
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = 0
    """Tokens that a pair's score takes at most where the model writes it as text; 0 for any other
    model."""
    golden_pairs: int = 0
    """Golden pairs that were scored before the worker turned ready; 0 where the model has none and
    the check was skipped."""
    picture_store: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """An id of the worker's store of decoded pictures, another one after each start. Empty where
    calls need all their pixels, as for workers that are older than this field."""
    picture_store_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    """Bytes of pixels that the store keeps at most, those of the pictures that were used last."""
    calibrations: Annotated[tuple[Calibration, ...], msgspec.Meta(max_length=MAX_CALIBRATIONS)] = ()
    """At most one for each instruction; none from a worker that is older than this field. Scores
    and their digest do not depend on them."""

    def calibration(self, instruction: str | None) -> Calibration | None:
        """The calibration of a request's instruction, or of the default one for None or ""."""
        wanted = instruction or self.default_instruction
        for each in self.calibrations:
            if each.instruction == wanted:
                return each
        return None


MSGPACK = "application/msgpack"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Exceptions of msgspec's decoders for bytes that are not the expected message."""
TIMEOUT_HEADER = "x-rerank-timeout-ms"
"""Milliseconds that a worker has from the moment it reads the call. A duration, unlike a point in
time, needs no common clock."""
REQUEST_ID_HEADER = "x-request-id"
