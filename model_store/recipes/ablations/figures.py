"""Images of the page: all differences with their intervals, the course of W+ and W-, and the number
of negatives.

Depends on a summary and matplotlib. Invariant: an image is drawn exactly where the page shows it,
and is written atomically.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_store.output_files import output_file
from model_store.recipes.ablations.comparisons import CL, LOSSES, NEGATIVES, SFT
from model_store.recipes.ablations.intervals import Interval, interval
from model_store.recipes.ablations.results import Summary
from model_store.recipes.ablations.tables import COURSES, DIFFERENCES, difference, shown
from model_store.recipes.ablations.tables import NEGATIVES as NEGATIVES_IMAGE
from model_store.recipes.ablations.variants import Variant

_COLOURS = {"sft": "#1f6f54", "cl": "#c8663b"}
_PAPER = "#444444"
_DOTS_PER_INCH = 130


def draw(summary: Summary, folder: Path, page: str) -> None:
    """Draw every image that `page` names into `folder`; raises `DataError` where the disk
    refuses."""
    images: dict[str, Callable[[Summary], Figure]] = {
        DIFFERENCES: _differences,
        COURSES: _courses,
        NEGATIVES_IMAGE: _negatives,
    }
    for name, make in images.items():
        if name not in page:
            continue
        content = io.BytesIO()
        make(summary).savefig(
            content, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None}
        )
        with output_file(folder / name) as write:
            write(content.getvalue())


def _differences(summary: Summary) -> Figure:
    """A line for each difference: ours as a dot with its interval, the paper's as a diamond."""
    lines = _lines(summary)
    figure = Figure(figsize=(11, 1.4 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for y, (_, found, printed) in enumerate(lines):
        axes.errorbar(
            found.mean,
            y,
            xerr=found.reach or 0.0,
            fmt="o",
            color=_COLOURS["sft"],
            capsize=3,
            label="ours, 95 %" if y == 0 else None,
        )
        if printed is not None:
            axes.plot(
                printed,
                y,
                "D",
                markerfacecolor="none",
                color=_PAPER,
                label="paper" if y == 0 else None,
            )

    # limits by means alone: an interval of two seeds may reach far beyond them
    furthest = max(max(abs(found.mean), abs(printed or 1.0)) for _, found, printed in lines)
    axes.set_xlim(-1.3 * furthest, 1.3 * furthest)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference in points (ours: nDCG@10 of nine cells; the paper's: MRB)")
    _plain(axes)
    axes.legend(frameon=False, loc="best")
    return figure


def _lines(summary: Summary) -> list[tuple[str, Interval, float | None]]:
    """(label, our interval, the paper's number) of every difference that was measured."""
    lines: list[tuple[str, Interval, float | None]] = []
    for comparison in shown(summary):
        for asked in comparison.differences:
            found = difference(summary, asked)
            if found is not None:
                lines.append((f"{asked.label}  ({comparison.printed})", found, asked.paper))
    return lines


def _courses(summary: Summary) -> Figure:
    """Mean W+ and W- over the steps (figure 3): a pale line a seed, and their mean."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    positive, negative = figure.subplots(1, 2)
    _draw_courses(summary, positive, "positive", "W+")
    _draw_courses(summary, negative, "negative", "W-")
    return figure


def _draw_courses(summary: Summary, axes: Axes, field: str, title: str) -> None:
    steps = float(summary.facts["steps"])
    for (name, label), variant in zip(LOSSES, (SFT, CL), strict=True):
        courses = [getattr(run, field) for run in summary.of(variant.name).values()]
        if not courses:
            continue
        bins = len(courses[0])
        at = [steps * (number + 0.5) / bins for number in range(bins)]
        for course in courses:
            axes.plot(at, course, color=_COLOURS[name], alpha=0.25, linewidth=0.8)
        means = [fmean(values) for values in zip(*courses, strict=True)]
        axes.plot(at, means, color=_COLOURS[name], label=label)

    axes.set(title=f"mean {title} of a document", xlabel="step", xlim=(0, steps), ylim=(0, None))
    _plain(axes)
    axes.legend(frameon=False)


def _negatives(summary: Summary) -> Figure:
    """nDCG@10 over the number of negatives, a line a loss."""
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, label in LOSSES:
        found: dict[int, Interval] = {}
        for count in NEGATIVES:
            runs = summary.of(Variant(name, name, negatives=count).name)
            if runs:
                found[count] = interval([run.score for run in runs.values()])
        axes.errorbar(
            list(found),
            [score.mean for score in found.values()],
            yerr=[score.reach or 0.0 for score in found.values()],
            fmt="o-",
            color=_COLOURS[name],
            capsize=3,
            label=label,
        )

    axes.set_xscale("log", base=2)
    axes.set_xticks(NEGATIVES, [str(count) for count in NEGATIVES])
    axes.set(xlabel="negatives", ylabel="nDCG@10")
    _plain(axes)
    axes.legend(frameon=False)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
