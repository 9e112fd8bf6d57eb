"""Draws the dashboards from the answers of a Prometheus, without Grafana, as one PNG each.

`python -m tests.observability.render OUT [NAME ...]` runs the service under a short load
(`scene.py`) and draws the named dashboards, or all, as OUT/dashboard-NAME.png. It reads the JSON as
Grafana does: positions, units, legends, thresholds.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from deploy.dashboards.build import DASHBOARDS, file_of
from deploy.dashboards.grafana import COLUMNS, Json
from tests.observability.prometheus import STEP, Prometheus, Series
from tests.observability.scene import scene

_PAGE, _CARD, _TEXT, _DIM, _GRID = "#111217", "#181b1f", "#d8d9da", "#8e8e93", "#2c3235"
_LINES = (
    "#73bf69",
    "#f2cc0c",
    "#5794f2",
    "#ff9830",
    "#f2495c",
    "#b877d9",
    "#37872d",
    "#fade2a",
    "#8ab8ff",
    "#ffb357",
)
_NAMED = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "text": _TEXT,
}
_COLUMN, _LINE = 0.6, 0.32  # inches of a column and of a line of Grafana's grid
_LEGEND_LINES, _COLORS = 7, 256


def draw(dashboard: Json, prometheus: Prometheus, file: Path) -> None:
    """Draw a dashboard, with "All" selected everywhere, over the whole time that Prometheus has
    recorded."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    style = {
        "font.size": 7,
        "text.color": _TEXT,
        "axes.edgecolor": _GRID,
        "xtick.color": _DIM,
        "ytick.color": _DIM,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(COLUMNS * _COLUMN, height * _LINE + 0.5), facecolor=_PAGE, dpi=100)
        figure.text(
            0.008,
            1 - 0.22 / figure.get_figheight(),
            dashboard["title"],
            fontsize=12,
            weight="bold",
            va="center",
        )
        chosen = prometheus.choose(dashboard["templating"]["list"])
        for panel in dashboard["panels"]:
            _draw_panel(figure, panel, prometheus, chosen)
        data = BytesIO()
        figure.savefig(data, facecolor=_PAGE)
    # a fifth of the size
    Image.open(data).convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE).save(
        file, optimize=True
    )


def legend_of(target: Json, series: Series) -> str:
    """The name of a series in Grafana: the legend with its labels filled in, or else its labels."""
    if target["legendFormat"] == "__auto":
        return (
            ", ".join(
                f"{name}={value}"
                for name, value in sorted(series.labels.items())
                if name != "__name__"
            )
            or target["expr"]
        )
    return re.sub(
        r"{{\s*(\w+)\s*}}", lambda found: series.labels.get(found[1], ""), target["legendFormat"]
    )


def _draw_panel(
    figure: Figure, panel: Json, prometheus: Prometheus, chosen: Mapping[str, str]
) -> None:
    place, width, height = panel["gridPos"], figure.get_figwidth(), figure.get_figheight()
    left, top = place["x"] * _COLUMN, height - 0.5 - place["y"] * _LINE
    if panel["type"] == "row":
        figure.text(
            (left + 0.1) / width,
            (top - 0.2) / height,
            f"v {panel['title']}",
            fontsize=9,
            weight="bold",
        )
        return
    box = (
        left + 0.04,
        top - place["h"] * _LINE + 0.04,
        place["w"] * _COLUMN - 0.08,
        place["h"] * _LINE - 0.08,
    )
    card = figure.add_axes(
        (box[0] / width, box[1] / height, box[2] / width, box[3] / height), facecolor=_CARD
    )
    card.set(xticks=[], yticks=[], xlim=(0, box[2]), ylim=(0, box[3]))
    card.text(0.08, box[3] - 0.13, panel["title"], fontsize=8, weight="bold", va="center")
    if panel["type"] == "table":
        _table(
            card,
            panel,
            [
                each
                for target in panel["targets"]
                for each in prometheus.table(target["expr"], chosen)
            ],
        )
        return
    found = [
        (legend_of(target, series), series)
        for target in panel["targets"]
        for series in prometheus.graph(target["expr"], chosen)
    ]
    if not found:
        card.text(box[2] / 2, box[3] / 2, "No data", ha="center", color=_DIM)
        return
    if panel["type"] == "stat":
        _stat(card, panel, found, box)
        return
    lines = min(len(found), _LEGEND_LINES) * 0.14 if panel["type"] == "timeseries" else 0
    inner = (box[0] + 0.55, box[1] + 0.28 + lines, box[2] - 0.7, box[3] - 0.58 - lines)
    axes = figure.add_axes(
        (inner[0] / width, inner[1] / height, inner[2] / width, inner[3] / height), facecolor=_CARD
    )
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    (_heatmap if panel["type"] == "heatmap" else _lines)(axes, panel, found)
    axes.set_xlim(*_dates([prometheus.begun, time.time()]))
    if panel["type"] == "timeseries":
        _legend(card, panel, found)


def _lines(axes: Axes, panel: Json, found: Sequence[tuple[str, Series]]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults["custom"]
    times = _times(found)
    below = np.zeros(len(times))
    for number, (_, series) in enumerate(found):
        heights = _heights(series, times)
        color = _LINES[number % len(_LINES)]
        if custom["stacking"]["mode"] == "normal":
            heights = np.nan_to_num(heights) + below
            axes.fill_between(_dates(times), below, heights, color=color, alpha=0.3, linewidth=0)
            below = heights
        axes.plot(_dates(times), heights, color=color, linewidth=1.1)
    if custom["thresholdsStyle"]["mode"] == "line":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=_NAMED[step["color"]], linewidth=0.8, linestyle="--")
    axes.grid(color=_GRID, linewidth=0.5)
    if custom["scaleDistribution"]["type"] == "symlog":
        axes.set_yscale("symlog", linthresh=custom["scaleDistribution"]["linearThreshold"])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value, unit)))
    _, highest = axes.get_ylim()
    axes.set_ylim(defaults.get("min"), defaults.get("max", max(highest, 1e-9)))


def _heatmap(axes: Axes, panel: Json, found: Sequence[tuple[str, Series]]) -> None:
    """Draw a heat map from Prometheus' cumulative buckets."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = sorted(
        ((float(series.labels["le"]), series) for _, series in found), key=lambda row: row[0]
    )
    times = _times(found)
    counts = np.array([_heights(series, times) for _, series in rows])
    apart = np.diff(np.nan_to_num(counts), axis=0, prepend=0).clip(min=0)
    edges = np.arange(len(rows) + 1)
    axes.pcolormesh(
        _dates([*times, times[-1] + STEP]),
        edges,
        np.where(apart > 1e-9, apart, np.nan) ** 0.5,
        cmap="inferno",
    )
    every = max(1, len(rows) // 8)
    axes.set_yticks(edges[1::every], [said(edge, unit) for edge, _ in rows[::every]])


def _stat(
    card: Axes,
    panel: Json,
    found: Sequence[tuple[str, Series]],
    box: tuple[float, float, float, float],
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    words = {
        word: said["text"]
        for mapping in defaults["mappings"]
        for word, said in mapping["options"].items()
    }
    for number, (name, series) in enumerate(found):
        middle = box[2] * (number + 0.5) / len(found)
        value = series.last
        reached = [
            step
            for step in defaults["thresholds"]["steps"]
            if step["value"] is None or value >= step["value"]
        ]
        text = words.get(f"{value:g}") or said(value, defaults["unit"], defaults.get("decimals"))
        size = min(22, 72 * box[2] / len(found) / (0.8 * max(len(text), 3)))
        card.text(
            middle,
            box[3] * 0.42,
            text,
            fontsize=size,
            ha="center",
            va="center",
            color=_NAMED[reached[-1]["color"]],
        )
        if len(found) > 1:
            card.text(middle, box[3] * 0.12, name, fontsize=6, ha="center", color=_DIM)


def _legend(card: Axes, panel: Json, found: Sequence[tuple[str, Series]]) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    right = card.get_xlim()[1]
    for number, (name, series) in enumerate(found[:_LEGEND_LINES]):
        up = 0.08 + (min(len(found), _LEGEND_LINES) - 1 - number) * 0.14
        more = (
            f"  (+{len(found) - _LEGEND_LINES} more)"
            if number == _LEGEND_LINES - 1 and len(found) > _LEGEND_LINES
            else ""
        )
        card.plot([0.1, 0.22], [up, up], color=_LINES[number % len(_LINES)], linewidth=2)
        card.text(0.28, up, name + more, fontsize=6, va="center")
        highest = max(series.values, default=math.nan)
        card.text(
            right - 0.08,
            up,
            f"max {said(highest, unit)}   last {said(series.last, unit)}",
            fontsize=6,
            va="center",
            ha="right",
        )


def _table(card: Axes, panel: Json, rows: Sequence[Series]) -> None:
    shown = panel["transformations"][0]["options"]["renameByName"]
    width, height = card.get_xlim()[1] / len(shown), card.get_ylim()[1]
    for column, (label, heading) in enumerate(shown.items()):
        card.text(0.1 + column * width, height - 0.4, heading, fontsize=7, color=_NAMED["blue"])
        for number, row in enumerate(rows):
            card.text(
                0.1 + column * width,
                height - 0.6 - number * 0.18,
                row.labels.get(label, "")[:28],
                fontsize=6.5,
            )


def _times(found: Sequence[tuple[str, Series]]) -> list[int]:
    """All times from the first point to the last, so that missing points are gaps."""
    moments = [round(when) for _, series in found for when, _ in series.points]
    return list(range(min(moments), max(moments) + 1, STEP))


def _heights(series: Series, times: Sequence[int]) -> np.ndarray:
    values = {round(when): value for when, value in series.points}
    return np.array([values.get(when, math.nan) for when in times])


def _dates(times: Sequence[float]) -> list[float]:
    """Times as matplotlib's dates."""
    return [when / 86_400 for when in times]


_SCALES = {
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
}
_ENDINGS = {"reqps": " req/s", "cps": " /s", "ops": " ops/s", "percent": "%", "watt": " W"}


def said(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, formatted for people."""
    if value != value:
        return "-"
    if math.isinf(value):
        return "+Inf"
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    ending = f" {unit.removeprefix('si:')}" if unit.startswith("si:") else _ENDINGS.get(unit, "")
    for size, prefix in _SCALES.get(unit, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))):
        if abs(value) >= size:
            return _digits(value / size, decimals) + prefix + ending
    return _digits(value, decimals) + ending


def _digits(value: float, decimals: int | None) -> str:
    return f"{value:.{decimals}f}" if decimals is not None else f"{value:.3g}"


def _main(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, scene(Path(scratch)) as prometheus:
        for dashboard in DASHBOARDS:
            if not names or dashboard.name in names:
                page = json.loads(file_of(dashboard).read_text(encoding="utf-8"))
                draw(page, prometheus, folder / f"dashboard-{dashboard.name}.png")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
