"""The call that scores documents, and the outcomes of its reply.

Translates between contents and `service.wire`; depends on no worker and no decoder. Invariant: a
call has each distinct picture once, and every entry of a reply is a score or one of the service's
errors.
"""

from __future__ import annotations

from service.errors import (
    BY_CODE,
    InvalidRequest,
    NoScore,
    PairTooLong,
    RerankError,
    WorkerFailed,
)
from service.gateway.chunks import Images, pictures_in
from service.gateway.domain import PairOutcome, ScoringContext
from service.gateway.media.content import Content, Picture
from service.wire import Pixels, Refused, ScoreCall, Scored, ScoreReply, WireItem, WorkerInfo

_TOO_LONG_ALONE = {
    "instruction": "This alone has more than the {} tokens that the model reads.",
    "query": "This and the instruction have more than the {} tokens that the model reads.",
}


def score_call(context: ScoringContext, documents: list[Content], images: Images) -> ScoreCall:
    """The call that scores some documents; each distinct picture is in it once."""
    used = dict.fromkeys(picture.digest for picture in pictures_in(context.query, *documents))
    indices = {digest: index for index, digest in enumerate(used)}
    pixels = [images[digest] for digest in used]

    return ScoreCall(
        model=context.model.model,
        instruction=context.instruction,
        query=_wire_item(context.query, indices),
        documents=[_wire_item(document, indices) for document in documents],
        images=[image for image in pixels if isinstance(image, Pixels)],
        truncate=context.truncate,
        cache_salt=context.cache_salt,
    )


def _wire_item(content: Content, indices: dict[bytes, int]) -> WireItem:
    """A content as a call has it: texts, and the indices of images."""
    return [indices[part.digest] if isinstance(part, Picture) else part.text for part in content]


def image_error(content: Content, images: Images) -> RerankError | None:
    """The error of the first picture of a content that could not be decoded, with its location."""
    for picture in pictures_in(content):
        image = images[picture.digest]
        if isinstance(image, RerankError):
            return image.at(picture.loc)
    return None


def outcome_of(model: WorkerInfo, pair: Scored | Refused) -> PairOutcome:
    """A worker's score, or the error of its refusal."""
    if isinstance(pair, Scored):
        return pair
    if pair.code == PairTooLong.code:
        limit = model.max_pair_tokens
        return PairTooLong(
            f"Query and document have more than the {limit} tokens that the model reads."
        )
    if pair.code == InvalidRequest.code:
        return InvalidRequest(
            f"The prompt of the model {model.model} has no place for the parts of this pair."
        )
    if pair.code == NoScore.code:
        return NoScore(
            f"The model {model.model} wrote no score for this document within"
            f" {model.max_completion_tokens} tokens."
        )
    return BY_CODE.get(pair.code, WorkerFailed)()


def expect_room_for_documents(model: WorkerInfo, reply: ScoreReply) -> None:
    """Raise `PairTooLong` where the query or the instruction is too long by itself: no document is
    the reason then."""
    for pair in reply.pairs:
        if isinstance(pair, Refused) and pair.part in _TOO_LONG_ALONE:
            message = _TOO_LONG_ALONE[pair.part].format(model.max_pair_tokens)
            raise PairTooLong(message).at((pair.part,))
