"""The page of results: every comparison as a table, our numbers beside the paper's, in Markdown.

Depends on a summary and the paper's numbers, not on runs. Invariant: the page is a function of the
summary alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from model_store.evaluation.metrics import expected_ndcg_of_chance
from model_store.evaluation.nine_cells import CANDIDATES, CUT
from model_store.recipes.ablations import paper
from model_store.recipes.ablations.claims import claims, paired
from model_store.recipes.ablations.comparisons import COMPARISONS, ORDER
from model_store.recipes.ablations.intervals import Interval, interval
from model_store.recipes.ablations.results import RunSummary, Summary
from model_store.recipes.ablations.table_cells import (
    cells_mean,
    mean,
    printed,
    signed,
    table,
    verdict,
)
from model_store.recipes.ablations.variants import Comparison, Difference, Row

IMAGES = "images"
DIFFERENCES, COURSES, NEGATIVES = (
    "ablations-differences.png",
    "ablations-weights.png",
    "ablations-negatives.png",
)
"""Images of the page: all differences, W+ and W-, and the number of negatives."""
_FIRST = "w-d"
_CHANCE = 100 * expected_ndcg_of_chance(CANDIDATES, CUT)
_MIN_ORDERED = 3
"""Rows from which their order is compared with the paper's."""
_QUERIES = {"query is a text": "T", "query is a picture": "I", "query is both": "IT"}
_FRACTION = 5
"""W+ and W- are averaged over the first and the last fifth of a run."""

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
    facts = "\n".join(_facts(summary.facts))
    parts = [_HEAD.format(facts=facts, repeated=_repeated(), chance=_CHANCE)]
    parts.append("\n".join(claims(summary)) + "\n")
    if any(_has_differences(summary, comparison) for comparison in done):
        parts.append(f"![All differences]({IMAGES}/{DIFFERENCES})\n")

    for comparison in done:
        parts.append("\n".join(_section(summary, comparison)) + "\n")

    for other in summary.beside:
        for comparison in shown(other):
            done.append(comparison)
            parts.append("\n".join(_section(other, comparison, facts=True)) + "\n")

    missing: list[str] = []
    for comparison in COMPARISONS.values():
        if comparison not in done:
            missing.append(f"{comparison.title.lower()} ({comparison.printed})")

    if missing:
        parts.append(f"**Not run here:** {', '.join(missing)}.\n")

    return "\n".join(parts)


def shown(summary: Summary) -> list[Comparison]:
    """Comparisons with a run of a variant of their own.

    The variants of the first comparison are the reference of all, and begin that one alone.
    """
    shared = COMPARISONS[_FIRST].variants
    begun: list[Comparison] = []
    for comparison in COMPARISONS.values():
        own = [variant for variant in comparison.variants if variant not in shared]
        if any(summary.of(variant.name) for variant in own or comparison.variants):
            begun.append(comparison)
    return begun


def difference(summary: Summary, asked: Difference) -> Interval | None:
    """The interval of a difference over the seeds that both sides have; None where they share
    none."""
    values = paired(summary, asked)
    return interval(values) if values else None


def _has_differences(summary: Summary, comparison: Comparison) -> bool:
    return any(difference(summary, asked) is not None for asked in comparison.differences)


def _facts(facts: Mapping[str, object]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for name, value in facts.items():
        yield f"| {name.replace('_', ' ')} | {value} |"


def _repeated() -> str:
    parts = [
        f"{name} {first:.2f} and {second:.2f} ({tables})"
        for name, first, second, tables in paper.REPEATED
    ]
    return "; ".join(parts)


def _section(summary: Summary, comparison: Comparison, *, facts: bool = False) -> Iterator[str]:
    """A comparison, with the facts of its plan where those are not the page's."""
    yield f"## {comparison.title} ({comparison.printed})\n"
    if comparison.note:
        yield f"{comparison.note}\n"
    if facts:
        yield from _facts(summary.facts)
        yield ""

    rows: list[Sequence[str]] = []
    for row in comparison.rows:
        runs = _runs(summary, row)
        by_seed = ", ".join(f"{run.score:.1f}" for run in runs)
        rows.append((row.label, mean(runs), by_seed, printed(row.paper)))

    yield from table(("", "nDCG@10", "by seed", "paper, MRB"), rows)

    if comparison.differences:
        yield ""
        yield from table(
            ("difference", "ours", "paper", "", "most in", "the others"),
            [_difference_cells(summary, asked) for asked in comparison.differences],
        )
    yield from _orders(summary, comparison)
    yield from _extras(summary, comparison)


def _runs(summary: Summary, row: Row) -> list[RunSummary]:
    return list(summary.of(row.variant.name).values())


def _difference_cells(summary: Summary, asked: Difference) -> Sequence[str]:
    found = difference(summary, asked)
    return (
        asked.label,
        signed(found),
        printed(asked.paper, signed=True),
        verdict(found, asked.paper),
        *_furthest(summary, asked),
    )


def _furthest(summary: Summary, asked: Difference) -> tuple[str, str]:
    """The cell that moved furthest between two variants, and the mean of all other cells, over the
    seeds that both variants have."""
    before, after = summary.of(asked.before.name), summary.of(asked.after.name)
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return "", ""

    moved: dict[str, float] = {}
    for cell in before[seeds[0]].cells:
        changes = [after[seed].cells[cell] - before[seed].cells[cell] for seed in seeds]
        moved[cell] = 100 * fmean(changes)

    furthest = max(moved, key=lambda cell: abs(moved[cell]))
    others = [change for cell, change in moved.items() if cell != furthest]
    return f"{furthest} {moved[furthest]:+.1f}", f"{fmean(others):+.2f}" if others else ""


def _orders(summary: Summary, comparison: Comparison) -> Iterator[str]:
    """Rows from best to worst, ours and the paper's, where both are known for three or more."""
    ours: dict[str, float] = {}
    papers: dict[str, float] = {}
    for row in comparison.rows:
        runs = _runs(summary, row)
        if runs and row.paper is not None:
            ours[row.label] = fmean(run.score for run in runs)
            papers[row.label] = row.paper

    if len(ours) < _MIN_ORDERED:
        return

    order, printed = _best_first(ours), _best_first(papers)
    same = "The order is the paper's" if order == printed else "The order is not the paper's"
    yield f"\n{same}. Best first, ours: {'; '.join(order)}. The paper's: {'; '.join(printed)}."


def _best_first(values: dict[str, float]) -> list[str]:
    return sorted(values, key=lambda label: -values[label])


def _extras(summary: Summary, comparison: Comparison) -> Iterator[str]:
    """Tables and images that one comparison has beside its two tables."""
    if comparison.name == _FIRST:
        yield "\nBy cell, mean over seeds:\n"
        yield from table(*_by_cell(summary, comparison))
    if comparison.name == ORDER:
        yield "\nBy cell, and paired differences with their intervals over seeds:\n"
        labels = [row.label for row in comparison.rows]
        yield from table(("cell", *labels, "difference"), _rows_by_cell(summary, comparison))
    if comparison.name == "curves":
        yield (
            "\nMean weight of a positive and of a negative, in the first and in the last fifth of"
            " the steps:\n"
        )
        rows = [(row.label, *_courses(_runs(summary, row))) for row in comparison.rows]
        yield from table(("", "W+, first", "W+, last", "W-, first", "W-, last"), rows)
        yield f"\n![W+ and W- in training]({IMAGES}/{COURSES})"
    if comparison.name == "negatives":
        yield f"\n![Number of negatives]({IMAGES}/{NEGATIVES})"


def _by_cell(summary: Summary, comparison: Comparison) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Heads and rows of a table of the cells' means."""
    cells = list(summary.runs[0].cells)
    rows: list[Sequence[str]] = []
    for row in comparison.rows:
        runs = _runs(summary, row)
        if runs:
            rows.append((row.label, *(cells_mean(runs, [cell]) for cell in cells)))
    return ("", *cells), rows


def _rows_by_cell(summary: Summary, comparison: Comparison) -> Iterator[Sequence[str]]:
    """Means of each row and the interval of their paired differences: for each cell, and for the
    cells that have one kind of query."""
    (asked,) = comparison.differences
    cells = list(summary.runs[0].cells)
    groups = {cell: [cell] for cell in cells}
    for label, kind in _QUERIES.items():
        groups[label] = [cell for cell in cells if cell.split("-")[0] == kind]

    before, after = summary.of(asked.before.name), summary.of(asked.after.name)
    for label, group in groups.items():
        changes: list[float] = []
        for seed in sorted(before.keys() & after.keys()):
            moved = [after[seed].cells[cell] - before[seed].cells[cell] for cell in group]
            changes.append(100 * fmean(moved or [0.0]))

        if group:
            means = [cells_mean(_runs(summary, row), group) for row in comparison.rows]
            yield label, *means, signed(interval(changes) if changes else None)


def _courses(runs: Sequence[RunSummary]) -> Iterator[str]:
    """Mean W+ of the first and of the last part of the steps, and then mean W-."""
    for courses in ([run.positive for run in runs], [run.negative for run in runs]):
        if not courses:
            yield from ("not run", "not run")
            continue
        bins = max(1, len(courses[0]) // _FRACTION)
        first: list[float] = []
        last: list[float] = []
        for course in courses:
            first += course[:bins]
            last += course[-bins:]
        yield f"{fmean(first):.3f}"
        yield f"{fmean(last):.3f}"
