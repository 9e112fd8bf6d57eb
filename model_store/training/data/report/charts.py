"""Charts of a report as SVG within the page: colours come from its style, and no script is needed.

Depends on numbers and names. Invariant: a name is text, whatever it holds, and a chart has a
sentence for readers who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from model_store.training.data.report.content import Bars, Chart, Points
from model_store.training.data.report.escaping import plain_html

WIDTH, WIDE = 350, 728
"""Units of a chart, and of one that takes two columns: about a pixel each."""
_ROW, _VALUE = 25, 56
_CHARACTER = 6.6
_HEIGHT, _LEFT, _BOTTOM = 150, 44, 24
_LABEL_CHARACTERS, _WIDE_CHARACTERS = 20, 64
_MOST_TICKS = 8
_GAP = 2


def svg(chart: Chart) -> str:
    """A chart as an SVG element."""
    if isinstance(chart, Points):
        return _points(chart)
    return _upright(chart) if chart.upright else _lying(chart)


def legend(chart: Chart) -> Sequence[str]:
    """Names of the parts of bars, where there are several."""
    return chart.parts if isinstance(chart, Bars) and len(chart.parts) > 1 else ()


def _lying(chart: Bars) -> str:
    """Bars below each other, with a name before each and its number behind."""
    most = max((sum(amounts) for _, amounts in chart.rows), default=0) or 1
    allowed, width = (_WIDE_CHARACTERS, WIDE) if chart.wide else (_LABEL_CHARACTERS, WIDTH)
    longest = max((len(name) for name, _ in chart.rows), default=0)
    label = 14 + _CHARACTER * min(allowed, longest)
    room = width - label - _VALUE

    drawn: list[str] = []
    for row, (name, amounts) in enumerate(chart.rows):
        top = row * _ROW
        middle = top + _ROW / 2 + 4.5
        drawn.append(
            f'<text x="{label - 10:.1f}" y="{middle}" class="end">{_short(name, allowed)}'
            f"<title>{plain_html(name)}</title></text>"
        )

        left = label
        for part, amount in enumerate(amounts):
            long = room * amount / most
            if amount:
                drawn.append(_bar(part, left, top + 5, max(1.0, long), _ROW - 10, f"{amount:,}"))
            left += long
        drawn.append(
            f'<text x="{left + 8:.1f}" y="{middle}" class="number">{sum(amounts):,}</text>'
        )

    return _element(chart, width, max(1, len(chart.rows)) * _ROW, drawn)


def _upright(chart: Bars) -> str:
    """Bars beside each other over an axis; those of several parts stand in groups."""
    most = max((max(amounts) for _, amounts in chart.rows), default=0) or 1
    height, room = _HEIGHT - _BOTTOM - 14, WIDTH - _LEFT
    step = room / max(1, len(chart.rows))
    width = min(34.0, max(1.0, (step - _GAP) / len(chart.parts)))
    every = math.ceil(len(chart.rows) / _MOST_TICKS)
    base = 10 + height

    drawn = [
        f'<line x1="{_LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}" class="axis"/>',
        f'<text x="{_LEFT - 8}" y="18" class="end number">{most:,}</text>',
        f'<text x="{_LEFT - 8}" y="{base + 4}" class="end number">0</text>',
    ]

    for column, (name, amounts) in enumerate(chart.rows):
        middle = _LEFT + (column + 0.5) * step
        left = middle - width * len(amounts) / 2
        for part, amount in enumerate(amounts):
            if amount:
                tall = max(1.0, height * amount / most)
                what = f"{name}: {amount:,} {chart.parts[part]}"
                drawn.append(_bar(part, left + part * width, base - tall, width - 1, tall, what))
        if column % every == 0:
            drawn.append(
                f'<text x="{middle:.1f}" y="{base + 17}" class="middle">{_short(name)}</text>'
            )

    return _element(chart, WIDTH, _HEIGHT, drawn)


def _points(chart: Points) -> str:
    """Sizes as circles over logarithmic axes; their area grows with their number."""
    sides: list[int] = []
    for width, height, _ in chart.sizes:
        sides += [max(1, width), max(1, height)]
    low, high = math.log2(min(sides)) - 0.5, math.log2(max(sides)) + 0.5
    total = sum(count for _, _, count in chart.sizes)

    square = 200
    drawn = [
        f'<rect x="{_LEFT}" y="6" width="{square}" height="{square}" class="frame"/>',
        f'<line x1="{_LEFT}" y1="{6 + square}" x2="{_LEFT + square}" y2="6" class="axis"/>',
    ]

    for exponent in range(math.ceil(low), math.floor(high) + 1):
        place = square * (exponent - low) / (high - low)
        text = f"{2**exponent:,}"
        drawn.append(
            f'<text x="{_LEFT + place:.1f}" y="{square + 22}" class="middle number">{text}</text>'
        )
        drawn.append(
            f'<text x="{_LEFT - 6}" y="{10 + square - place:.1f}" class="end number">{text}</text>'
        )

    for width, height, count in chart.sizes:
        x = _LEFT + square * (math.log2(max(1, width)) - low) / (high - low)
        y = 6 + square - square * (math.log2(max(1, height)) - low) / (high - low)
        radius = 3 + 9 * math.sqrt(count / total)
        drawn.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="dot">'
            f"<title>{width} x {height}: {count:,}</title></circle>"
        )

    return _element(chart, WIDTH, square + 28, drawn)


def _bar(part: int, left: float, top: float, width: float, height: float, what: str) -> str:
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2"'
        f' class="part{part}"><title>{plain_html(what)}</title></rect>'
    )


def _short(name: str, most: int = _LABEL_CHARACTERS) -> str:
    shown = name if len(name) <= most else name[: most - 1] + "…"
    return plain_html(shown)


def _element(chart: Chart, width: float, height: float, drawn: Sequence[str]) -> str:
    label = plain_html(f"{chart.title}: {chart.note}")
    inner = "".join(drawn)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}">{inner}</svg>'
    )
