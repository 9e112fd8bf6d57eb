"""Cells of the page's tables: numbers with their intervals, and rows in Markdown.

Depends on intervals, not on comparisons. Invariant: a number without runs is "not run".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from model_store.recipes.ablations.intervals import Interval, interval
from model_store.recipes.ablations.results import RunSummary


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table's lines."""
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def mean(runs: Sequence[RunSummary]) -> str:
    """The mean of runs, with its interval."""
    if not runs:
        return "not run"

    found = interval([run.score for run in runs])
    return f"{found.mean:.2f}" + _reach(found)


def signed(found: Interval | None) -> str:
    """A difference with its sign and its interval."""
    return "not run" if found is None else f"{found.mean:+.2f}" + _reach(found)


def _reach(found: Interval) -> str:
    return "" if found.reach is None else f" ± {found.reach:.2f}"


def printed(value: float | None, *, signed: bool = False) -> str:
    """A number that the paper prints, or a dash."""
    if value is None:
        return "-"
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def verdict(found: Interval | None, printed: float | None) -> str:
    """Our interval against the paper's difference; its sign where the paper prints none."""
    if found is None or found.reach is None:
        return ""
    if found.sign == 0:
        return "not told apart"
    if printed is None:
        return "more" if found.sign > 0 else "less"

    return "as the paper" if found.sign * printed > 0 else "opposite"


def cells_mean(runs: Sequence[RunSummary], cells: Sequence[str]) -> str:
    """The mean of some cells of the benchmark over runs, in per cent."""
    if not runs:
        return "not run"

    values: list[float] = []
    for run in runs:
        values += [run.cells[cell] for cell in cells]
    return f"{100 * fmean(values):.1f}"
