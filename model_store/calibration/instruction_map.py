"""The map of one instruction with its evidence: fitted, chosen, and measured on pairs that it was
not fitted to.

Depends on judged pairs, not on networks or files. Invariant: equal pairs and seeds give equal maps.
"""

from __future__ import annotations

from model_store.calibration.description import Evidence, InstructionMap, PlattMap
from model_store.calibration.fitting import FOLDS, choose, held_out_probabilities, probabilities
from model_store.calibration.judged_pairs import JudgedPairs
from model_store.calibration.measures import errors, log_loss, reliability

MIN_QUERIES = 20
"""Queries with a relevant document, and queries with an irrelevant one, that a fit needs."""


def map_of(
    instruction: str,
    pairs: JudgedPairs,
    *,
    rows: str,
    unfitted: PlattMap | None,
    weighted: bool,
    seed: int,
) -> InstructionMap:
    """The map of an instruction.

    `rows` is the digest of the rows. `unfitted` is the sigmoid that gives the model's relevance
    score, or None where that is no probability; it is the map where neither fit is better.
    """
    platt, isotonic = held_out_probabilities(pairs, seed)
    fitted, held_out = choose(pairs, platt, isotonic, unfitted)
    own = None if unfitted is None else probabilities(unfitted, pairs.scores)
    evidence = Evidence(
        rows=rows,
        queries=pairs.count_queries,
        relevant=int(pairs.relevant.sum()),
        irrelevant=int((~pairs.relevant).sum()),
        relevant_share=pairs.relevant_share,
        weighted=weighted,
        folds=FOLDS,
        platt_log_loss=log_loss(platt, pairs),
        isotonic_log_loss=log_loss(isotonic, pairs),
        held_out=errors(held_out, pairs, seed),
        uncalibrated=None if own is None else errors(own, pairs, seed),
        bins=reliability(held_out, pairs),
    )
    return InstructionMap(instruction=instruction, map=fitted, evidence=evidence)


def shortage(instruction: str, queries: int, with_irrelevant: int) -> str | None:
    """A sentence on an instruction with too few queries, or too few with an irrelevant document;
    None where there are enough."""
    if min(queries, with_irrelevant) >= MIN_QUERIES:
        return None
    shown = instruction if len(instruction) <= 80 else f"{instruction[:77]}..."
    return (
        f"The instruction {shown!r} has {queries} queries with a relevant document and"
        f" {with_irrelevant} with an irrelevant one: a calibration needs at least {MIN_QUERIES} of"
        " each."
    )
