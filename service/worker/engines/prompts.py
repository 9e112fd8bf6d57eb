"""Steps that every engine shares: documents into prompts, logits into verdicts, a checkpoint into
its description.

Depends on calls and the checkpoint's family, not on an engine. Invariant: two engines that get one
call read the same token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from model_store.calibration import description
from model_store.calibration.description import InstructionMap
from model_store.checkpoint import Adapter, Checkpoint, version_of
from model_store.families.family import Family, SideRules
from model_store.families.generated_answer import RULE, Answer, AnswerReader
from model_store.families.prompt import Image, Item, NotRendered, PairUnreadable, Prompt, Rendering
from model_store.families.readout import GeneratedScore
from service.errors import InvalidRequest, NoScore, PairTooLong
from service.wire import (
    Calibration,
    ImageRule,
    IsotonicMap,
    Pixels,
    PlattMap,
    Refused,
    ScoreCall,
    Scored,
    SideRule,
    Transform,
    WireItem,
    WorkerInfo,
)

PIECE_CHARACTERS = 2**16
"""Characters that one piece of rendering reads, which take some 20 ms of a core. A call gives way
to others after each piece, and a call that is abandoned stops after the current one."""
_PART_CHARACTERS = 64
"""Time that a document or an image takes besides its texts, in characters."""
CUT = "cut 2"
"""Version of the rule by which long texts are cut. It decides scores, so it is part of every
model's digest."""


class CallRenderer:
    """Renders the prompts of one call, some documents at a time.

    Its methods block: call them off the event loop, one at a time.
    """

    def __init__(self, checkpoint: Checkpoint, call: ScoreCall) -> None:
        self._checkpoint, self._call = checkpoint, call
        self._rendering: Rendering | None = None

    def prompts(self, documents: Sequence[WireItem]) -> Sequence[Prompt | NotRendered]:
        """One prompt for each of some of the call's documents, in order."""
        if self._rendering is None:
            self._rendering = self._open()
        return self._rendering.prompts([_item(item, self._call.images) for item in documents])

    def _open(self) -> Rendering:
        call = self._call
        instruction = call.instruction
        if instruction is None:
            instruction = self._checkpoint.manifest.default_instruction

        query = _item(call.query, call.images)
        return self._checkpoint.family.renderer((instruction,), query, truncate=call.truncate)


def pieces(documents: Sequence[WireItem]) -> Iterator[range]:
    """Runs of documents by index, each of at most `PIECE_CHARACTERS` or of one document."""
    first, characters = 0, 0
    for index, document in enumerate(documents):
        size = _PART_CHARACTERS + sum(map(_characters, document))
        if first < index and characters + size > PIECE_CHARACTERS:
            yield range(first, index)
            first, characters = index, 0
        characters += size

    if documents:
        yield range(first, len(documents))


def refused(pair: NotRendered) -> Refused:
    """The verdict on a pair that does not fit, or whose parts the prompt has no place for."""
    if isinstance(pair, PairUnreadable):
        return Refused(InvalidRequest.code)
    return Refused(PairTooLong.code, "" if pair.part == "pair" else pair.part)


def prompt_image(pixels: Pixels) -> Image:
    """The image of a prompt that some pixels of a call stand for."""
    return Image(pixels.digest, pixels.width, pixels.height)


def verdict_on(
    family: Family, prompt: Prompt, answer: Answer, reused_tokens: int = 0
) -> Scored | Refused:
    """The verdict on a prompt that was scored, with its cost; a refusal where it has no number."""
    if answer.score is None:
        return Refused(NoScore.code)

    image_tokens = sum(map(family.images.tokens, prompt.images)) if family.images else 0
    return Scored(
        answer.score,
        len(prompt.prefix.ids) + len(prompt.suffix.ids),
        image_tokens,
        prompt.truncated,
        reused_tokens,
        answer.tokens,
    )


def completion_bound(checkpoint: Checkpoint, limit: int | None) -> int:
    """Tokens that the model may write for a pair; 0 where it writes none.

    `limit` is the operator's; None: the read-out's own.
    """
    readout = checkpoint.readout
    if not isinstance(readout, GeneratedScore):
        return 0
    return readout.max_tokens if limit is None else limit


def answer_reader(family: Family, max_tokens: int) -> AnswerReader:
    """A reader of one answer of at most `max_tokens`, by a family that has its score written."""
    assert isinstance(family.readout, GeneratedScore)
    return AnswerReader(family.tokenizer, family.readout, max_tokens)


def describe(
    checkpoint: Checkpoint,
    adapter: Adapter | None = None,
    *,
    parts: Sequence[str],
    engine: str,
    dtype: str,
    device: str,
    max_completion_tokens: int = 0,
    cut: str = CUT,
) -> WorkerInfo:
    """A served model.

    Its digest covers files, engine, dtype and the `cut` rule, and `parts`: further arguments that
    decide a score. For a model that writes its score, it covers the bound on that text, too.
    """
    manifest, model = checkpoint.manifest, adapter or checkpoint
    digested = [checkpoint.digest, engine, dtype, cut, *parts]
    if adapter:
        digested.append(adapter.digest)
    if max_completion_tokens:
        digested += [RULE, f"max_completion_tokens={max_completion_tokens}"]
    digest = hashlib.sha256("\n".join(digested).encode()).hexdigest()

    transform, family = checkpoint.transform, checkpoint.family
    return WorkerInfo(
        model=model.name,
        digest=f"sha256:{digest}",
        family=manifest.family,
        template=manifest.template,
        default_instruction=manifest.default_instruction,
        max_pair_tokens=manifest.max_tokens,
        images=_image_rule(checkpoint),
        engine=engine,
        dtype=dtype,
        device=device,
        version=version_of(model),
        read_out=checkpoint.readout.name,
        probability=Transform(
            transform.scale, transform.shift, transform.curve, manifest.transform
        ),
        cacheable_side=family.cacheable_side,
        takes_instruction=family.takes_instruction,
        query_side=_side_rule(family.query_side),
        document_side=_side_rule(family.document_side),
        max_completion_tokens=max_completion_tokens,
        calibrations=() if adapter else _calibrations(checkpoint),
    )


def _calibrations(checkpoint: Checkpoint) -> tuple[Calibration, ...]:
    """The maps of the checkpoint's calibration, for scores of the checkpoint itself."""
    described = checkpoint.calibration
    return tuple(map(_calibration, () if described is None else described.maps))


def _calibration(described: InstructionMap) -> Calibration:
    evidence, found = described.evidence, described.map
    applied: PlattMap | IsotonicMap
    if isinstance(found, description.PlattMap):
        applied = PlattMap(found.slope, found.intercept)
    else:
        applied = IsotonicMap(found.scores, found.probabilities)
    return Calibration(
        instruction=described.instruction,
        map=applied,
        rows=evidence.rows,
        pairs=evidence.relevant + evidence.irrelevant,
        relevant_share=evidence.relevant_share,
        ece=evidence.held_out.ece,
        ece_low=evidence.held_out.ece_low,
        ece_high=evidence.held_out.ece_high,
    )


def _side_rule(rules: SideRules) -> SideRule:
    return SideRule(rules.texts, rules.max_images, rules.mixed)


def _image_rule(checkpoint: Checkpoint) -> ImageRule | None:
    rules = checkpoint.family.images
    return ImageRule(rules.cell, rules.min_pixels, rules.max_pixels) if rules else None


def _characters(part: str | int) -> int:
    return len(part) if isinstance(part, str) else _PART_CHARACTERS


def _item(item: WireItem, images: Sequence[Pixels]) -> Item:
    """A side of a pair as the family takes it: images in the place of their indexes."""
    return tuple(part if isinstance(part, str) else prompt_image(images[part]) for part in item)
