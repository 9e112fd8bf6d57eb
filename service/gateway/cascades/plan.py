"""A cascade's plan: its stages as the workers serve them at the moment, and the cascade as a model.

Depends on descriptions of models, not on requests or scores. Invariant: a stage of a plan is a
model with the version that the cascade was measured with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from model_store.cascades.description import Stage
from model_store.cascades.folder import PublishedCascade
from model_store.cascades.keep_rule import most_kept, next_stage
from service.errors import ModelNotFound, NoWorker
from service.gateway.fleet.pool import WorkerPool
from service.wire import ImageRule, SideRule, WorkerInfo


@dataclass(frozen=True, slots=True)
class Plan:
    """A cascade as it is served: `models` are its stages' models, `model` the cascade as one."""

    published: PublishedCascade
    models: tuple[WorkerInfo, ...]
    model: WorkerInfo

    @property
    def name(self) -> str:
        """The cascade's name."""
        return self.published.cascade.name

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages as they are described."""
        return self.published.cascade.stages

    def runs(self, documents: int, *, pictures: bool) -> list[tuple[int, int]]:
        """The stages, from 0, that score a request of so many documents, and the number of
        documents that each is expected to score."""
        runs: list[tuple[int, int]] = []
        number, remaining = next_stage(self.stages, 0, documents, pictures=pictures), documents
        while True:
            runs.append((number, remaining))
            rule = self.stages[number].keep
            if rule is None:
                return runs
            expected = most_kept(rule, remaining)
            if rule.share is None:  # a margin keeps what it kept when it was measured
                measured = self.published.cascade.evidence.scored[number + 1]
                expected = min(remaining, max(rule.at_least, round(measured * documents)))
            number = next_stage(self.stages, number + 1, expected, pictures=pictures)
            remaining = expected


def plan_of(published: PublishedCascade, pool: WorkerPool) -> Plan:
    """The plan of a cascade; raises `NoWorker`, with the reason, where the workers do not serve
    one of its stages."""
    stages = published.cascade.stages
    models = tuple(stage_model(published, number, pool) for number in range(len(stages)))
    return Plan(published, models, _as_one(published, models))


def stage_model(
    published: PublishedCascade, number: int, pool: WorkerPool, digest: str | None = None
) -> WorkerInfo:
    """The model of a stage, from 0, with the size of images of that stage; `digest` is preferred.

    Raises `NoWorker`, with the reason, where no worker serves it in its version.
    """
    name, stage = published.cascade.name, published.cascade.stages[number]
    try:
        model = pool.model(stage.model, digest)
    except ModelNotFound:
        raise _not_served(name, number, "no worker serves its model") from None

    if model.version != stage.version:
        reason = "its model is served in another version than it was measured with"
        raise _not_served(name, number, reason)
    if model.probability.curve != "sigmoid":
        raise _not_served(name, number, "the scores of its model are no log-odds")
    if stage.max_pixels is None or model.images is None:
        return model

    rule = model.images
    if stage.max_pixels < rule.cell**2:
        reason = f"an image for its model has at least {rule.cell**2} pixels"
        raise _not_served(name, number, reason)
    most = min(rule.max_pixels, stage.max_pixels)
    reduced = ImageRule(rule.cell, min(rule.min_pixels, most), most)
    return structs.replace(model, images=reduced)


def variant_of(stage: Stage) -> str:
    """The name of a stage's way to use its model; empty where it is the model's own."""
    return f"max_pixels={stage.max_pixels}" if stage.max_pixels else ""


def _not_served(name: str, number: int, reason: str) -> NoWorker:
    """The error of a cascade; it names no model, which its caller may not be allowed to use."""
    return NoWorker(f"The cascade {name} is not served: stage {number + 1}: {reason}.")


def _as_one(published: PublishedCascade, models: Sequence[WorkerInfo]) -> WorkerInfo:
    """A cascade as a model: what all its stages read, and the scale of the last one."""
    last = models[-1]
    text_only = any(model.images is None for model in models)
    digested = "\n".join([published.version, *(model.digest for model in models)])
    return structs.replace(
        last,
        model=published.cascade.name,
        digest=f"sha256:{hashlib.sha256(digested.encode()).hexdigest()}",
        version=published.version,
        max_pair_tokens=min(model.max_pair_tokens for model in models),
        images=None if text_only else last.images,
        takes_instruction=all(model.takes_instruction for model in models),
        query_side=_common([model.query_side for model in models]),
        document_side=_common([model.document_side for model in models]),
        max_completion_tokens=max(model.max_completion_tokens for model in models),
        golden_pairs=min(model.golden_pairs for model in models),
        calibrations=(),  # those of the last stage are not fitted to what a cascade keeps
    )


def _common(sides: Sequence[SideRule]) -> SideRule:
    """The parts that all of some models read on a side."""
    most = [side.max_images for side in sides if side.max_images is not None]
    return SideRule(
        texts=all(side.texts for side in sides),
        max_images=min(most) if most else None,
        mixed=all(side.mixed for side in sides),
    )
