"""Publishing of a cascade: a draft of its stages, the measurement's verdict, and the folder.

Depends on files and figures, not on networks: a caller measures. Invariant: a folder is written
only where the measured loss, at the far end of its interval, is within the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_store.cascades.description import (
    MAX_STAGES,
    Cascade,
    Evidence,
    KeepRule,
    ModelName,
    Stage,
    expect_consistent,
)
from model_store.cascades.folder import CASCADE, MAX_CASCADE_BYTES, first_problem
from model_store.checkpoint import Checkpoint, version_of
from model_store.golden import GOLDEN
from model_store.manifest import CASCADE_FAMILY
from model_store.training.publish.folder import described_as, draft_of, seal
from model_store.training.publish.pairs import PublishRefused

POINTS = 100
"""Points of nDCG in 1.0."""


class DraftStage(BaseModel):
    """A stage as its author writes it: `checkpoint` is a name, a folder or NAME@production, and
    `model` the name under which workers serve it, by default the checkpoint's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str = Field(min_length=1, max_length=4096)
    model: ModelName | None = None
    max_pixels: int | None = Field(None, ge=1, le=2**31)
    keep: KeepRule | None = None


class CascadeDraft(BaseModel):
    """The file that `gmr publish --cascade` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName | None = None
    stages: list[DraftStage] = Field(min_length=2, max_length=MAX_STAGES)


def read_draft(path: Path) -> CascadeDraft:
    """A draft from a JSON file; raises `PublishRefused` that names the first field which is
    wrong."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CASCADE_BYTES + 1)
    except OSError as error:
        raise PublishRefused(f"{path.name} cannot be read ({error.strerror}).") from None
    if len(content) > MAX_CASCADE_BYTES:
        raise PublishRefused(f"{path.name} is larger than {MAX_CASCADE_BYTES} bytes.")

    try:
        return CascadeDraft.model_validate_json(content)
    except ValidationError as error:
        raise PublishRefused(f"{path.name}: {first_problem(error)}.") from None


def stages_of(
    draft: CascadeDraft, checkpoints: Sequence[Checkpoint], name: str, source: str
) -> list[Stage]:
    """The stages of a draft, each pinned to the version of its checkpoint.

    Raises `PublishRefused` that names `source`, or the checkpoint that cannot be a stage.
    """
    stages: list[Stage] = []
    for number, (drafted, checkpoint) in enumerate(zip(draft.stages, checkpoints, strict=True), 1):
        version = version_of(checkpoint)
        if not version:
            raise PublishRefused(
                f"Stage {number}, {checkpoint.name}, has no manifest: `gmr models inspect --golden`"
                " makes one, and its digest pins the stage."
            )
        if checkpoint.transform.curve != "sigmoid":
            raise PublishRefused(
                f"Stage {number}, {checkpoint.name}, has scores that are no log-odds (transform"
                f" {checkpoint.manifest.transform}), and a cascade compares log-odds."
            )
        stages.append(
            Stage(
                model=drafted.model or checkpoint.manifest.name,
                version=version,
                max_pixels=drafted.max_pixels,
                keep=drafted.keep,
            )
        )

    try:
        expect_consistent(name, stages)
    except ValueError as error:
        raise PublishRefused(f"{source}: {error}.") from None
    return stages


def refuse_loss(evidence: Evidence) -> None:
    """Raise `PublishRefused` where the loss may be more than the bound, by its interval."""
    if -evidence.low > evidence.max_loss:
        raise PublishRefused(
            f"{verdict(evidence)} Refused: the loss may be {-POINTS * evidence.low:.2f} points, and"
            f" {POINTS * evidence.max_loss:.2f} are allowed. Keep more documents, measure more"
            " --queries, or raise --max-loss."
        )


def verdict(evidence: Evidence) -> str:
    """The measurement as sentences."""
    return (
        f"On {evidence.benchmark} the cascade has {evidence.metric} {evidence.cascade:.4f} against"
        f" {evidence.last_stage:.4f} of its last stage alone, difference"
        f" {POINTS * evidence.difference:+.2f} points, 95 % interval"
        f" [{POINTS * evidence.low:+.2f}, {POINTS * evidence.high:+.2f}] over {evidence.queries}"
        f" queries. Its work is {evidence.saving:.2f} times less: {evidence.tokens} tokens by stage"
        f" against {evidence.last_stage_tokens}."
    )


def write_cascade(
    output: Path, name: str, stages: Sequence[Stage], evidence: Evidence, last: Checkpoint
) -> None:
    """Write a cascade's folder; `last` is the checkpoint of its last stage.

    Raises `PublishRefused` where the loss is too large or the folder cannot be written.
    """
    refuse_loss(evidence)
    cascade = Cascade(name=name, stages=list(stages), evidence=evidence)
    with draft_of(output) as folder:
        (folder / GOLDEN).unlink()  # a cascade has none: its stages have their own
        text = cascade.model_dump_json(indent=2, exclude_none=True) + "\n"
        (folder / CASCADE).write_text(text, encoding="utf-8")
        seal(
            folder,
            name=name,
            described=described_as(last.manifest)
            | {"family": CASCADE_FAMILY, "template": "stages"},
            card=_card(cascade),
            lineage={"stages": [stage.version for stage in stages]},
            files=[CASCADE],
        )


def _card(cascade: Cascade) -> str:
    """The card: stages, verdict, and a row for each cell."""
    lines = [
        f"# {cascade.name}",
        "",
        "A cascade: its answers are not those of its last stage alone. A document that the last"
        " stage did not score is below all that it did.",
        "",
        "| stage | model | version | images up to | keeps |",
        "|---|---|---|---|---|",
    ]
    for number, stage in enumerate(cascade.stages, 1):
        pixels = f"{stage.max_pixels} pixels" if stage.max_pixels else "as served"
        lines.append(
            f"| {number} | {stage.model} | {stage.version[:19]} | {pixels} | {_kept(stage.keep)} |"
        )

    lines += [
        "",
        verdict(cascade.evidence),
        "",
        f"Benchmark: {cascade.evidence.benchmark_digest}. Mean overlap of the best ten documents"
        f" {cascade.evidence.overlap:.3f}, Kendall's tau"
        f" {1 - 2 * cascade.evidence.discordance:.3f}.",
        "",
        "| cell | queries | cascade | last stage | difference in points | less work |",
        "|---|---|---|---|---|---|",
    ]
    for cell, found in cascade.evidence.cells.items():
        lines.append(
            f"| {cell} | {found.queries} | {found.cascade:.4f} | {found.last_stage:.4f} |"
            f" {POINTS * found.difference:+.2f} [{POINTS * found.low:+.2f},"
            f" {POINTS * found.high:+.2f}] |"
            f" {found.saving:.2f}x |"
        )
    return "\n".join(lines) + "\n"


def _kept(rule: KeepRule | None) -> str:
    """A keep rule in words."""
    if rule is None:
        return ""
    if rule.share is not None:
        return f"the best {rule.share:.0%}, at least {rule.at_least}"
    return (
        f"within {rule.margin:g} of the score of rank {rule.rank}, in log-odds, at least"
        f" {rule.at_least}"
    )
