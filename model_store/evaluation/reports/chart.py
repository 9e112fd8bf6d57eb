"""A report as a picture: a line for each task and cell, from the first stage to a perfect reranker.

Depends on a report and matplotlib. Invariant: equal reports give equal pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from model_store.evaluation.bootstrap import Estimate
from model_store.evaluation.reports.report import Line, Report
from model_store.files import atomic_path

MAX_LINES = 120
"""Tasks, and cells, of a picture: more of them are not drawn."""
INK, PALE, BLUE = "#202124", "#d9dce1", "#1a6fc4"
_SYSTEM_COLORS = ("#e07b00", "#2b9348", "#8a3ffc", "#c2185b", "#6d4c41", "#00838f")
_MARKERS = ("D", "s", "^", "v", "P", "X")
_MAX_NAME_CHARS = 34


def draw(report: Report, path: Path) -> None:
    """Draw a PNG, whole or not at all; raises `OSError`."""
    from matplotlib.figure import Figure  # with no window and no global state

    lines = list(_lines(report))
    figure = Figure(figsize=(10, 1.5 + 0.27 * (len(lines) + 1)), layout="constrained")
    axes: Any = figure.subplots()
    for place, line in enumerate(lines):
        if line is not None:
            _draw_line(axes, place, line, report)

    labels = [_label(line, report) for line in lines]
    bare_axes(axes, labels, [line is report.whole or line in report.cells for line in lines])
    axes.set(xlabel="score, 0 to 100", xlim=_range(report))
    title = f"{report.subject.model} on {report.subject.benchmark}: {_hundred(report.whole)}"
    figure.suptitle(title.replace("$", r"\$"), fontsize=13, fontweight="bold", color=INK)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    save(figure, path)


def bare_axes(axes: Any, labels: Sequence[str], bold: Sequence[bool]) -> None:
    """A line for each label, from the top, and no frame."""
    axes.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels])
    for label, is_bold in zip(axes.get_yticklabels(), bold, strict=True):
        label.set_fontweight("bold" if is_bold else "normal")
    axes.set(ylim=(len(labels) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def shortened(name: str) -> str:
    """A name that fits beside the axis."""
    return name if len(name) <= _MAX_NAME_CHARS else name[: _MAX_NAME_CHARS - 1] + "…"


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all; raises `OSError`."""
    with atomic_path(path) as draft:
        figure.savefig(draft, dpi=120, format="png", metadata={"Software": None})


def _lines(report: Report) -> Iterator[Line | None]:
    """The whole, then each cell before its tasks; None is an empty line."""
    if len(report.rows) > 1:
        yield report.whole
    has_cells = 1 < len(report.cells) < min(len(report.rows), MAX_LINES)
    rows = report.rows if len(report.rows) <= MAX_LINES else []
    for cell in report.cells:
        if has_cells:
            yield None
            yield cell
        yield from (row for row in rows if row.cell == cell.cell)


def _draw_line(axes: Any, place: int, line: Line, report: Report) -> None:
    """The range that the first stage leaves, the score with its interval, and published scores."""
    first = "_" if axes.get_legend_handles_labels()[0] else ""
    axes.plot(
        [100 * line.first_stage, 100 * line.perfect],
        [place, place],
        color=PALE,
        linewidth=8,
        solid_capstyle="butt",
        label=f"{first}first stage to perfect reranker",
    )
    for number, name in enumerate(report.systems):
        if name in line.systems:
            axes.plot(
                100 * line.systems[name],
                place,
                _MARKERS[number % len(_MARKERS)],
                markersize=4.5,
                markerfacecolor="none",
                markeredgewidth=1.1,
                color=_SYSTEM_COLORS[number % len(_SYSTEM_COLORS)],
                label=_once(axes, name),
            )
    label = _once(axes, f"{report.subject.model}, 95 %")
    draw_interval(axes, place, line.score, color=BLUE, label=label)


def draw_interval(
    axes: Any, place: float, estimate: Estimate, *, color: str, label: str | None = None
) -> None:
    """A value and its interval on the row `place`, in points of 100."""
    axes.errorbar(
        100 * estimate.value,
        place,
        xerr=[
            [100 * max(0.0, estimate.value - estimate.low)],
            [100 * max(0.0, estimate.high - estimate.value)],
        ],
        fmt="o",
        color=color,
        markersize=5.5,
        elinewidth=1.6,
        capsize=2.5,
        label=label,
    )


def _once(axes: Any, label: str) -> str:
    """A label of the legend, or none where the legend has it."""
    return f"_{label}" if label in axes.get_legend_handles_labels()[1] else label


def _range(report: Report) -> tuple[float, float]:
    """The ends of the axis, so that every value is within."""
    values: list[float] = []
    for line in (report.whole, *report.cells, *report.rows):
        values += [line.first_stage, line.perfect, line.score.low, line.score.high]
        values += line.systems.values()
    low, high = 100 * min(values), 100 * max(values)
    return max(low - 3, -1), min(high + 3, 101)


def _label(line: Line | None, report: Report) -> str:
    if line is None:
        return ""
    name = "all" if line is report.whole else shortened(line.name)
    return f"{name}  {_hundred(line)}"


def _hundred(line: Line) -> str:
    return f"{100 * line.score.value:.2f}"
