"""The page's images: all differences with their intervals, the course of W+ and W-, and the number
of negatives.

Knows a summary and matplotlib. Invariant: an image is drawn exactly where the page shows it, whole
or not at all.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_store.recipes.ablations.groups import CL, LOSSES, NEGATIVES, SFT
from model_store.recipes.ablations.intervals import Interval, interval
from model_store.recipes.ablations.results import Summary
from model_store.recipes.ablations.tables import COURSES, DIFFERENCES, difference, shown
from model_store.recipes.ablations.tables import NEGATIVES as NEGATIVES_IMAGE
from model_store.recipes.ablations.variants import Variant
from model_store.training.data.row_files import output_file

_COLOURS = {"sft": "#1f6f54", "cl": "#c8663b"}
_PAPER = "#444444"
_DOTS_PER_INCH = 130


def draw(summary: Summary, folder: Path, page: str) -> None:
    """Draw every image that `page` names into `folder`; raises `DataError` where the disk
    refuses."""
    drawn: dict[str, Callable[[Summary], Figure]] = {
        DIFFERENCES: _differences,
        COURSES: _courses,
        NEGATIVES_IMAGE: _negatives,
    }
    for name, make in drawn.items():
        if name in page:
            packed = io.BytesIO()
            make(summary).savefig(
                packed, dpi=_DOTS_PER_INCH, format="png", metadata={"Software": None}
            )
            with output_file(folder / name) as write:
                write(packed.getvalue())


def _differences(summary: Summary) -> Figure:
    """A line for each difference: ours as a dot with its interval, the paper's as a diamond."""
    lines = [
        (f"{each.label}  ({group.printed})", found, each.paper)
        for group in shown(summary)
        for each in group.differences
        if (found := difference(summary, each)) is not None
    ]
    figure = Figure(figsize=(11, 1.4 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for place, (_, found, printed) in enumerate(lines):
        axes.errorbar(
            found.mean,
            place,
            xerr=found.reach or 0.0,
            fmt="o",
            color=_COLOURS["sft"],
            capsize=3,
            label="ours, 95 %" if not place else None,
        )
        if printed is not None:
            axes.plot(
                printed,
                place,
                "D",
                markerfacecolor="none",
                color=_PAPER,
                label="paper" if not place else None,
            )
    most = max(abs(value) for _, found, printed in lines for value in (found.mean, printed or 1.0))
    # an interval of two seeds may reach far beyond all means
    axes.set_xlim(-1.3 * most, 1.3 * most)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference in points (ours: nDCG@10 of nine cells; the paper's: MRB)")
    _plain(axes)
    axes.legend(frameon=False, loc="best")
    return figure


def _courses(summary: Summary) -> Figure:
    """Mean W+ and W- over the steps (figure 3), a line a seed, pale, and their mean."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    steps = float(summary.facts["steps"])
    for axes, sign, title in zip(
        figure.subplots(1, 2), ("positive", "negative"), ("W+", "W-"), strict=True
    ):
        for (name, label), variant in zip(LOSSES, (SFT, CL), strict=True):
            lines = [getattr(run, sign) for run in summary.of(variant.name).values()]
            at = (
                [steps * (place + 0.5) / len(lines[0]) for place in range(len(lines[0]))]
                if lines
                else []
            )
            for line in lines:
                axes.plot(at, line, color=_COLOURS[name], alpha=0.25, linewidth=0.8)
            if lines:
                axes.plot(
                    at,
                    [fmean(values) for values in zip(*lines, strict=True)],
                    color=_COLOURS[name],
                    label=label,
                )
        axes.set(
            title=f"mean {title} of a document", xlabel="step", xlim=(0, steps), ylim=(0, None)
        )
        _plain(axes)
        axes.legend(frameon=False)
    return figure


def _negatives(summary: Summary) -> Figure:
    """nDCG@10 over the number of negatives, a line a loss."""
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, label in LOSSES:
        found = {
            count: _score(summary, Variant(name, name, negatives=count)) for count in NEGATIVES
        }
        known = {count: value for count, value in found.items() if value is not None}
        axes.errorbar(
            list(known),
            [value.mean for value in known.values()],
            yerr=[value.reach or 0.0 for value in known.values()],
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


def _score(summary: Summary, variant: Variant) -> Interval | None:
    runs = summary.of(variant.name)
    return interval([run.score for run in runs.values()]) if runs else None


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
