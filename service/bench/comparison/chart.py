"""A run's chart: pairs a second by workload and contender, with each one's ratio to the first.

Knows a report, nothing of how it came about. Invariant: void rows are not drawn.
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
_SHARE = 0.8
"""How much of a workload's place its bars take."""
_DOTS_PER_INCH = 140


def draw(report: Mapping[str, Any], output: Path) -> None:
    """Write a PNG with one panel for each number of callers."""
    rows = [row for row in report["rows"] if not row["void"]]
    callers = list(dict.fromkeys(row["callers"] for row in rows))
    figure = Figure(figsize=(11, 3.6 * max(len(callers), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(max(len(callers), 1), 1, squeeze=False)[:, 0]
    for panel, number in zip(panels, callers, strict=False):
        _panel(panel, [row for row in rows if row["callers"] == number])
        panel.set_title(f"{number} request{'s' if number > 1 else ''} at once", loc="left")
    machine = (
        report.get("gpu")
        or f"{report.get('processor', report['device'])}, {report.get('cores', '?')} cores"
    )
    title = (
        f"{report['model']} in {report['dtype']}, {report['documents']} documents a request,"
        f" {machine}"
    )
    figure.suptitle(f"{title}\nin brackets: time over that of the first, paired", fontsize=11)
    figure.savefig(output, dpi=_DOTS_PER_INCH)


def _panel(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Bars in groups: a workload each, and in it the contenders in the report's order."""
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    width = _SHARE / len(contenders)
    for place, contender in enumerate(contenders):
        own = [row for row in rows if row["contender"] == contender]
        left = [
            workloads.index(row["workload"]) + (place + 0.5) * width - _SHARE / 2 for row in own
        ]
        heights = [row["pairs_per_second"] for row in own]
        bars = panel.bar(
            left, heights, width * 0.92, label=contender, color=_COLOURS.get(contender)
        )
        labels = [f"{row['pairs_per_second']:.3g}\n{_ratio(row, rows)}" for row in own]
        panel.bar_label(bars, labels, fontsize=7, padding=2)
    panel.set_xticks(range(len(workloads)), workloads)
    panel.set_ylabel("pairs a second")
    panel.margins(y=0.2)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, ncols=len(contenders), loc="upper right")


def _ratio(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """How many times the first contender's time, where there is another one."""
    return "" if row["contender"] == rows[0]["contender"] else f"({row['ratio']:.2g}x)"
