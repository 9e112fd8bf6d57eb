"""The page of results: every comparison as a table, ours beside the paper's, in Markdown.

Knows a summary and the paper's numbers, nothing of how runs are made. Invariant: the page is a
function of the summary alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from model_store.evaluation.metrics import expected_ndcg_of_chance
from model_store.evaluation.nine_cells import CANDIDATES, CUT
from model_store.recipes.ablations import paper
from model_store.recipes.ablations.groups import GROUPS
from model_store.recipes.ablations.intervals import Interval, interval
from model_store.recipes.ablations.results import Run, Summary
from model_store.recipes.ablations.variants import Difference, Group

IMAGES = "images"
DIFFERENCES, COURSES, NEGATIVES = (
    "ablations-differences.png",
    "ablations-weights.png",
    "ablations-negatives.png",
)
"""What is drawn: all differences, W+ and W-, and the number of negatives."""
_FIRST = "w-d"
_CHANCE = 100 * expected_ndcg_of_chance(CANDIDATES, CUT)
_ORDERED = 3
"""Rows that have an order worth telling."""
_PART = 5
"""Which part of a run, its first fifth and its last, is averaged for W+ and W-."""

_HEAD = """\
# Ablations

What the paper's comparisons of losses come to on a small base. `gmr ablate` trains a LoRA adapter for each variant and each seed
with the training job itself (`gmr train`), measures all of them on the same held-out queries of nine generated cells (20
candidates each), and makes this page and its images from `ablations.json`.

{facts}

A base named `...-forgot-N` is a checkpoint whose last N language layers were made anew (`--forget N`): the paper starts from a
model that was not taught to rerank, and a reranker was.

**How to read it.** nDCG@10 in per cent, mean of the nine cells; a random order has {chance:.1f}. Intervals are Student's 95 %
over seeds; those of differences are over paired differences (one seed: the same first weights of the adapter, the same rows in
the same order, the same negatives); three seeds make them wide, and one run that does not leave chance makes them useless.
They say how sure the mean over seeds is on these queries, and nothing of other data. The paper's numbers are one run each on a
base of billions of weights, after 270,000 examples, on MRB: signs and order can be compared, sizes cannot. The paper prints some
settings twice:
{repeated}.
So far do two runs of one setting lie apart there, and several of its differences are smaller.

"as the paper": our interval lies on the paper's side of 0; "opposite": on the other; "not told apart": it holds 0. A mean of nine
cells can be one cell: "most in" is the cell that moved furthest, "the others" the mean of the difference over all other cells.
"""


def document(summary: Summary) -> str:
    """The page."""
    done = shown(summary)
    parts = [_HEAD.format(facts="\n".join(_facts(summary)), repeated=_repeated(), chance=_CHANCE)]
    if any(_known(summary, group.differences) for group in done):
        parts.append(f"![All differences]({IMAGES}/{DIFFERENCES})\n")
    parts += ["\n".join(_section(summary, group)) + "\n" for group in done]
    if missing := [
        f"{group.title.lower()} ({group.printed})" for group in GROUPS.values() if group not in done
    ]:
        parts.append(f"**Not run here:** {', '.join(missing)}.\n")
    return "\n".join(parts)


def shown(summary: Summary) -> list[Group]:
    """The groups that were begun: there is a run of what they alone ask for; their reference is
    another group's, too."""
    begun, shared = [], GROUPS[_FIRST].variants
    for group in GROUPS.values():
        own = [variant for variant in group.variants if variant not in shared] or group.variants
        if any(summary.of(variant.name) for variant in own):
            begun.append(group)
    return begun


def difference(summary: Summary, asked: Difference) -> Interval | None:
    """The interval of a difference over the seeds that both sides have; None where they have none
    in common."""
    before, after = summary.of(asked.before.name), summary.of(asked.after.name)
    shared = sorted(before.keys() & after.keys())
    return interval([after[seed].score - before[seed].score for seed in shared]) if shared else None


def _known(summary: Summary, asked: Iterable[Difference]) -> bool:
    return any(difference(summary, each) is not None for each in asked)


def _facts(summary: Summary) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in summary.facts.items():
        yield f"| {name.replace('_', ' ')} | {value} |"


def _repeated() -> str:
    return "; ".join(
        f"{name} {one:.2f} and {other:.2f} ({where})" for name, one, other, where in paper.REPEATED
    )


def _section(summary: Summary, group: Group) -> Iterator[str]:
    yield f"## {group.title} ({group.printed})\n"
    if group.note:
        yield f"{group.note}\n"
    yield from _table(
        ("", "nDCG@10", "by seed", "paper, MRB"),
        (
            (
                row.label,
                _mean(runs),
                ", ".join(f"{run.score:.1f}" for run in runs),
                _printed(row.paper),
            )
            for row in group.rows
            for runs in [list(summary.of(row.variant.name).values())]
        ),
    )
    if group.differences:
        yield ""
        yield from _table(
            ("difference", "ours", "paper", "", "most in", "the others"),
            (
                (
                    each.label,
                    _signed(found),
                    _printed(each.paper, signed=True),
                    _verdict(found, each.paper),
                    *_furthest(summary, each),
                )
                for each in group.differences
                for found in [difference(summary, each)]
            ),
        )
    yield from _orders(summary, group)
    yield from _more(summary, group)


def _furthest(summary: Summary, asked: Difference) -> tuple[str, str]:
    """The cell that moved furthest between two variants, and the mean over all other cells, over
    the seeds that both have."""
    before, after = summary.of(asked.before.name), summary.of(asked.after.name)
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return "", ""

    moved = {}
    for cell in before[seeds[0]].cells:
        moved[cell] = 100 * fmean(
            after[seed].cells[cell] - before[seed].cells[cell] for seed in seeds
        )
    furthest = max(moved, key=lambda cell: abs(moved[cell]))
    others = [value for cell, value in moved.items() if cell != furthest]
    return f"{furthest} {moved[furthest]:+.1f}", f"{fmean(others):+.2f}" if others else ""


def _orders(summary: Summary, group: Group) -> Iterator[str]:
    """Rows from best to worst, ours and the paper's, where both are known for three or more."""
    known = [
        (row, list(summary.of(row.variant.name).values()))
        for row in group.rows
        if row.paper is not None
    ]
    ours = {row.label: fmean(run.score for run in runs) for row, runs in known if runs}
    papers = {row.label: row.paper for row, runs in known if runs and row.paper is not None}
    if len(ours) < _ORDERED:
        return

    order, printed = (sorted(each, key=lambda label: -each[label]) for each in (ours, papers))
    same = "The order is the paper's" if order == printed else "The order is not the paper's"
    yield f"\n{same}. Best first, ours: {'; '.join(order)}. The paper's: {'; '.join(printed)}."


def _more(summary: Summary, group: Group) -> Iterator[str]:
    """What some comparisons have beside their two tables."""
    if group.name == _FIRST:
        cells = list(summary.runs[0].cells)
        yield "\nBy cell, mean over seeds:\n"
        yield from _table(
            ("", *cells),
            (
                (
                    row.label,
                    *(f"{100 * fmean(run.cells[cell] for run in runs):.1f}" for cell in cells),
                )
                for row in group.rows
                if (runs := list(summary.of(row.variant.name).values()))
            ),
        )
    if group.name == "curves":
        yield (
            "\nMean weight of a positive and of a negative, in the first and in the last fifth of"
            " the steps:\n"
        )
        yield from _table(
            ("", "W+, first", "W+, last", "W-, first", "W-, last"),
            (
                (row.label, *_courses(list(summary.of(row.variant.name).values())))
                for row in group.rows
            ),
        )
        yield f"\n![W+ and W- in training]({IMAGES}/{COURSES})"
    if group.name == "negatives":
        yield f"\n![Number of negatives]({IMAGES}/{NEGATIVES})"


def _courses(runs: Sequence[Run]) -> Iterator[str]:
    for course in ([run.positive for run in runs], [run.negative for run in runs]):
        part = max(1, len(course[0]) // _PART) if course else 1
        for cut in (slice(None, part), slice(-part, None)):
            yield (
                f"{fmean(value for each in course for value in each[cut]):.3f}"
                if course
                else "not run"
            )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _mean(runs: Sequence[Run]) -> str:
    if not runs:
        return "not run"
    found = interval([run.score for run in runs])
    return f"{found.mean:.2f}" + ("" if found.reach is None else f" ± {found.reach:.2f}")


def _signed(found: Interval | None) -> str:
    if found is None:
        return "not run"
    return f"{found.mean:+.2f}" + ("" if found.reach is None else f" ± {found.reach:.2f}")


def _printed(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else f"{value:+.2f}" if signed else f"{value:.2f}"


def _verdict(found: Interval | None, printed: float | None) -> str:
    """What our interval says of the paper's difference, or of its own where the paper prints
    none."""
    if found is None or found.reach is None:
        return ""
    if found.sign == 0:
        return "not told apart"
    if printed is None:
        return "more" if found.sign > 0 else "less"
    return "as the paper" if found.sign * printed > 0 else "opposite"
