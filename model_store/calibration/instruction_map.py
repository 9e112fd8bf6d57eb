"""The map of one instruction with its evidence: fitted, chosen, and measured on pairs that it was
not fitted to.

Depends on judged pairs, not on networks or files. Invariant: equal pairs and seeds give equal maps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from model_store.calibration.description import (
    MAX_INSTRUCTION_CHARS,
    MAX_INSTRUCTIONS,
    Evidence,
    InstructionMap,
    PlattMap,
)
from model_store.calibration.fitting import FOLDS, choose, held_out_probabilities, probabilities
from model_store.calibration.judged_pairs import MAX_PAIRS, Judged, JudgedPairs
from model_store.calibration.measures import errors, log_loss, reliability
from model_store.errors import DataError

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


def refuse_unfit(
    source: str, judged: Mapping[str, Sequence[Judged]], instructions: Collection[str]
) -> None:
    """Raise `DataError` where judged queries, by instruction, are too few or too many for maps, or
    an asked instruction has none; `source` is where they come from."""
    counts: dict[str, tuple[int, int]] = {}
    pairs = 0
    for instruction, queries in judged.items():
        if len(instruction) > MAX_INSTRUCTION_CHARS:
            raise DataError(
                f"{source}: an instruction has more than {MAX_INSTRUCTION_CHARS} characters."
            )
        relevant = sum(any(each) for _, each in queries)
        counts[instruction] = relevant, sum(not all(each) for _, each in queries)
        pairs += sum(len(each) for _, each in queries)
    if pairs > MAX_PAIRS:
        raise DataError(f"{source}: there are {pairs} pairs, and at most {MAX_PAIRS} are taken.")
    refuse_few(source, counts, instructions)


def refuse_few(
    source: str, queries: Mapping[str, Sequence[int]], instructions: Collection[str]
) -> None:
    """Raise `DataError` where an instruction has no queries or too few, or where there are too many
    instructions; `queries` counts, for each, those with a relevant document and those with an
    irrelevant one."""
    if not queries and not instructions:
        raise DataError(f"{source}: there is no judged query with scores.")
    for instruction in instructions:
        if instruction not in queries:
            raise DataError(f"{source}: no query has the instruction {instruction[:80]!r}.")
    if len(queries) > MAX_INSTRUCTIONS:
        raise DataError(
            f"{source}: there are {len(queries)} instructions, and a model has maps for at most"
            f" {MAX_INSTRUCTIONS}: choose some with --instruction."
        )
    for instruction, (relevant, irrelevant) in queries.items():
        sentence = shortage(instruction, relevant, irrelevant)
        if sentence is not None:
            raise DataError(f"{source}: {sentence}")


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
