"""The page's summary: which of the paper's differences hold here, which do not, and how many seeds
would settle the others.

Depends on a summary of results and the paper's numbers, not on runs. Invariant: every difference
that the paper prints is in the table once for each base that it was run on, or is listed as not
run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model_store.recipes.ablations.comparisons import CL, COMPARISONS, SFT
from model_store.recipes.ablations.intervals import MAX_SEEDS, POWER, interval, seeds_needed
from model_store.recipes.ablations.results import Summary
from model_store.recipes.ablations.table_cells import printed, signed, table, verdict
from model_store.recipes.ablations.variants import Comparison, Difference

_TEXT = """\
## Which claims hold

Every difference that the paper prints. "Seeds needed" are those with which a paired t-test at 5 %
would find a true difference of the paper's size in {power:.0%} of all cases, if paired differences
go on spreading as they did. A difference that is "not told apart" after fewer seeds is neither
shown nor refuted. Three seeds tell a spread to a factor of about two downwards and six upwards, and
the number of seeds goes with its square: it is an order of magnitude.
"""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A printed difference on one base: its paired differences by seed, in per cent, if run."""

    comparison: Comparison
    difference: Difference
    base: str
    values: Sequence[float]

    @property
    def verdict(self) -> str:
        return verdict(interval(self.values), self.difference.paper) or "one seed"


def claims(summary: Summary) -> Iterator[str]:
    """The section's lines; none where nothing was run."""
    found = list(_claims(summary))
    run = [claim for claim in found if claim.values]
    if not run:
        return

    yield _TEXT.format(power=POWER)
    yield from table(
        ("difference", "base", "paper", "ours", "", "seeds run", "seeds needed"),
        [_cells(claim) for claim in run],
    )
    counts = Counter(claim.verdict for claim in run)
    parts = [f"{count} {name}" for name, count in sorted(counts.items())]
    yield f"\nOf {len(run)} differences: {', '.join(parts)}."

    missing = sorted({claim.comparison.printed for claim in found if not claim.values})
    if missing:
        yield f"Not run: differences of {', '.join(missing)}."
    yield from _courses(summary)


def _claims(summary: Summary) -> Iterator[_Claim]:
    """Each printed difference for each base with runs of it, or once without any."""
    for comparison in COMPARISONS.values():
        for asked in comparison.differences:
            if asked.paper is None:
                continue
            bases: dict[str, list[float]] = {}
            for each in (summary, *summary.beside):
                values = paired(each, asked)
                if values:
                    bases[str(each.facts.get("base", ""))] = values
            for base, values in (bases or {"": []}).items():
                yield _Claim(comparison, asked, base, values)


def paired(summary: Summary, asked: Difference) -> list[float]:
    """The differences of the seeds that both sides have, in per cent, in the seeds' order."""
    before, after = summary.of(asked.before.name), summary.of(asked.after.name)
    seeds = sorted(before.keys() & after.keys())
    return [after[seed].score - before[seed].score for seed in seeds]


def _cells(claim: _Claim) -> Sequence[str]:
    assert claim.difference.paper is not None
    return (
        f"{claim.difference.label} ({claim.comparison.printed})",
        claim.base,
        printed(claim.difference.paper, signed=True),
        signed(interval(claim.values)),
        claim.verdict,
        str(len(claim.values)),
        _seeds(claim.values, claim.difference.paper),
    )


def _seeds(values: Sequence[float], size: float) -> str:
    if len(values) < 2:
        return "unknown"
    needed = seeds_needed(values, size)
    return f"more than {MAX_SEEDS}" if needed is None else str(needed)


def _courses(summary: Summary) -> Iterator[str]:
    """Figures 2 and 3 have no numbers: the stretches of training in which SFT's weights are the
    larger ones."""
    sft, cl = summary.of(SFT.name), summary.of(CL.name)
    seeds = sorted(sft.keys() & cl.keys())
    if not seeds:
        return

    above = {"W+": 0, "W-": 0}
    stretches = 0
    for seed in seeds:
        stretches += len(sft[seed].positive)
        above["W+"] += _above(sft[seed].positive, cl[seed].positive)
        above["W-"] += _above(sft[seed].negative, cl[seed].negative)
    yield (
        f"\nFigures 2 and 3 show larger weights of SFT throughout. Here W+ of SFT is above that of"
        f" CL in {above['W+']} of {stretches} stretches of training, and W- in {above['W-']}."
    )


def _above(first: Sequence[float], second: Sequence[float]) -> int:
    return sum(one > other for one, other in zip(first, second, strict=True))
