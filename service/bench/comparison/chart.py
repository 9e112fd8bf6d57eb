"""The chart of a comparison: pairs a second by workload and contender, each with its ratio to the
first contender.

Depends on a report alone. Invariant: void rows are not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOURS = {
    "ours": "#1f6f54",
    "vllm": "#b8b8b8",
    "vllm-tuned": "#8a8a8a",
    "torch": "#7fb3d5",
    "naive": "#d9b08c",
    "naive-last": "#e8cfb5",
}
_GROUP_WIDTH = 0.8
"""The width of a workload's bars together; the rest, up to 1, is the gap to the next workload."""
_DOTS_PER_INCH = 140


def draw(report: Mapping[str, Any], output: Path) -> None:
    """Write a PNG with one panel for each number of callers."""
    rows = [row for row in report["rows"] if not row["void"]]
    callers = list(dict.fromkeys(row["callers"] for row in rows))
    panel_count = max(len(callers), 1)

    figure = Figure(figsize=(11, 3.6 * panel_count), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(panel_count, 1, squeeze=False)[:, 0]
    for panel, number in zip(panels, callers, strict=False):
        _draw_panel(panel, [row for row in rows if row["callers"] == number])
        panel.set_title(f"{number} request{'s' if number > 1 else ''} at once", loc="left")

    title = (
        f"{report['model']} in {report['dtype']}, {report['documents']} documents a request,"
        f" {_machine(report)}"
    )
    figure.suptitle(f"{title}\nin brackets: time over that of the first, paired", fontsize=11)
    figure.savefig(output, dpi=_DOTS_PER_INCH)


def _draw_panel(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a group of bars for each workload, one bar a contender, in the report's order."""
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    width = _GROUP_WIDTH / len(contenders)

    for index, contender in enumerate(contenders):
        offset = (index + 0.5) * width - _GROUP_WIDTH / 2
        positions, heights, labels = [], [], []
        for row in rows:
            if row["contender"] != contender:
                continue
            positions.append(workloads.index(row["workload"]) + offset)
            heights.append(row["pairs_per_second"])
            labels.append(f"{row['pairs_per_second']:.3g}\n{_ratio(row, rows)}")
        colour = _COLOURS.get(contender)
        bars = panel.bar(positions, heights, width * 0.92, label=contender, color=colour)
        panel.bar_label(bars, labels, fontsize=7, padding=2)

    panel.set_xticks(range(len(workloads)), workloads)
    panel.set_ylabel("pairs a second")
    panel.margins(y=0.2)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, ncols=len(contenders), loc="upper right")


def _machine(report: Mapping[str, Any]) -> str:
    if report.get("gpu"):
        return str(report["gpu"])
    return f"{report.get('processor', report['device'])}, {report.get('cores', '?')} cores"


def _ratio(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The ratio in brackets; empty for the first contender, whose ratio is always 1."""
    return "" if row["contender"] == rows[0]["contender"] else f"({row['ratio']:.2g}x)"
