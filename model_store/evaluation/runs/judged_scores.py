"""The scores of a run as judged pairs, by the instruction that they were made with.

Depends on a run's folder alone: no network, and no data of its tasks. Invariant: scores of a run
are those of one model, and a query that failed has none.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from model_store.calibration.instruction_map import refuse_unfit
from model_store.calibration.judged_pairs import Judged
from model_store.checkpoint import Checkpoint
from model_store.errors import DataError
from model_store.evaluation.runs.folder import Run
from model_store.evaluation.runs.journal import RunUnusable
from model_store.evaluation.runs.query_result import QueryResult
from model_store.manifest import manifest_digest


@dataclass(slots=True)
class JudgedScores:
    """The judged scores of each query, by instruction; `left_out` counts queries without scores."""

    by_instruction: dict[str, list[Judged]] = field(default_factory=lambda: defaultdict(list))
    left_out: int = 0
    digest: str = ""
    """The SHA-256 of the queries, their candidates and grades, in 64 hex digits."""


def judged_scores(
    run: Run, checkpoint: Checkpoint, instructions: Collection[str] = ()
) -> JudgedScores:
    """The scores of a run of this checkpoint, of some instructions or all; candidates without a
    judgement are irrelevant, as in metrics.

    Raises `DataError` where the run is of another model, or has too little for a calibration, and
    `RunUnusable`.
    """
    _refuse_another_model(run, checkpoint)
    found = JudgedScores()
    digest = hashlib.sha256()
    for result in run.results():
        instruction = _instruction_of(result, run, checkpoint)
        if instructions and instruction not in instructions:
            continue
        digest.update(msgspec.json.encode([result.query, result.candidates, result.grades]))
        judged = _judged(result)
        if judged is None:
            found.left_out += 1
        else:
            found.by_instruction[instruction].append(judged)
    found.digest = digest.hexdigest()
    refuse_unfit(str(run.folders[0]), found.by_instruction, instructions)
    return found


def _refuse_another_model(run: Run, checkpoint: Checkpoint) -> None:
    own = f"sha256:{manifest_digest(checkpoint.folder)}"
    if run.identity.checkpoint != own:
        raise DataError(
            f"{run.folders[0]}: the run is of {run.identity.model}"
            f" ({run.identity.checkpoint[:19] or 'a version that it does not name'}), not of"
            f" {checkpoint.name} ({own[:19]}): scores of another version fit no map of this one."
        )


def _instruction_of(result: QueryResult, run: Run, checkpoint: Checkpoint) -> str:
    """The instruction that a query was scored with. Raises `RunUnusable` where the run does not
    say."""
    own = run.identity.instruction
    if own is None and result.instruction is msgspec.UNSET:
        raise RunUnusable(
            f"{run.folders[0]}: the run is of a version that did not keep the queries'"
            " instructions: score it once more, into another folder."
        )
    if own is None and isinstance(result.instruction, str):
        own = result.instruction
    return checkpoint.manifest.default_instruction if own is None else own


def _judged(result: QueryResult) -> Judged | None:
    """The scores and judgements of a query's candidates; None where none has a score."""
    scores: list[float] = []
    relevant: list[bool] = []
    for score, grade in zip(result.scores, result.grades, strict=True):
        if score is not None and math.isfinite(score):
            scores.append(score)
            relevant.append(grade > 0)
    return (scores, relevant) if scores else None
