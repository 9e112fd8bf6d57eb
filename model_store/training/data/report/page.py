"""A report as one HTML page: no script, no request, no file beside it.

Depends on the content of a report. Invariant: what rows hold is text or a picture that was made
anew; the page's own policy lets a browser load nothing and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from model_store.training.data.doubts.doubt import Place, counted
from model_store.training.data.report.charts import legend, svg
from model_store.training.data.report.content import (
    Bars,
    Chart,
    Content,
    NamedSide,
    ShownDoubt,
    first_sides,
)
from model_store.training.data.report.escaping import html_text, plain_html
from model_store.training.data.report.thumbnails import Thumbnails
from model_store.training.data.rows import Example, Side

_STYLE = Path(__file__).with_name("style.css")
_MOST_POSITIVES, _MOST_NEGATIVES = 3, 6


def html_page(content: Content) -> str:
    """The page of a report."""
    style = _STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none';"
        " form-action 'none'"
    )
    name = content.survey.path.name
    drawn = _Drawn(Thumbnails())
    body = "\n".join(
        (
            _top(content),
            '<main id="content">',
            _faults(content),
            _doubts(content, drawn),
            _charts(content.charts),
            _rows(content.rows, drawn),
            "</main>",
            _bottom(content.notes),
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{plain_html(name, 120)} · training rows</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


class _Drawn:
    """Rows as HTML, with thumbnails of their pictures."""

    def __init__(self, thumbnails: Thumbnails) -> None:
        self._thumbnails = thumbnails

    def row(self, example: Example, mark: str = "", remark: str = "") -> str:
        """A row as three columns; `mark` is the side that is meant."""
        documents = list(example.named_documents())
        positives = documents[: len(example.positives)]
        negatives = documents[len(example.positives) :]
        kinds: dict[str, str] = {}
        for (name, _), negative in zip(negatives, example.negatives, strict=True):
            kinds[name] = negative.kind

        instruction = ""
        if example.instruction:
            instruction = (
                f'<p class="instruction" dir="auto">{html_text(example.instruction, 200)}</p>'
            )
        note = f'<span class="remark" dir="auto">{html_text(remark, 200)}</span>' if remark else ""
        return (
            '<article class="row"><header>'
            f'<span class="line">line {example.line:,}</span>'
            f'<span class="id" dir="auto">{html_text(example.id, 60)}</span>{note}</header>'
            f"{instruction}"
            '<div class="columns">'
            f"{self._column('Query', [('query', example.query)], 1, mark, {})}"
            f"{self._column('Relevant', positives, _MOST_POSITIVES, mark, {})}"
            f"{self._column('Not relevant', negatives, _MOST_NEGATIVES, mark, kinds)}"
            "</div></article>"
        )

    def _column(
        self,
        title: str,
        sides: Sequence[NamedSide],
        most: int,
        mark: str,
        kinds: Mapping[str, str],
    ) -> str:
        """The first sides of a column, the marked one among them."""
        shown = first_sides(sides, most, mark)
        items = "".join(self._side(name, side, mark, kinds.get(name)) for name, side in shown)

        left = len(sides) - len(shown)
        more = f'<li class="more">and {left:,} more</li>' if left else ""
        if not sides:
            items = '<li class="more">none</li>'
        return f'<section><p class="title">{title}</p><ul>{items}{more}</ul></section>'

    def _side(self, name: str, side: Side, mark: str, kind: str | None) -> str:
        parts: list[str] = []
        if side.image is not None:
            uri = self._thumbnails.uri(side.image)
            alt = plain_html(side.image.name, 60)
            if uri is None:
                parts.append(f'<span class="missing">{alt}</span>')
            else:
                parts.append(f'<img src="{uri}" alt="{alt}" title="{alt}">')
        if side.text is not None:
            parts.append(f'<p class="text" dir="auto">{html_text(side.text)}</p>')

        badge = f'<span class="kind">{kind}</span>' if kind else ""
        marked = ' class="marked"' if name == mark else ""
        return f'<li{marked}><div class="side">{"".join(parts)}</div>{badge}</li>'


def _top(content: Content) -> str:
    """The name of the file, its figures, and the verdict."""
    survey = content.survey
    figures = [
        f"<li><strong>{number:,}</strong> <span>{name}</span></li>"
        for name, number in content.figures
    ]
    for name, number in (("faults", survey.wrong), ("doubts", len(survey.doubts))):
        state = ("bad" if name == "faults" else "warn") if number else "good"
        figures.append(
            f'<li class="{state}"><a href="#{name}"><strong>{number:,}</strong>'
            f" <span>{name}</span></a></li>"
        )

    return (
        '<a class="skip" href="#content">Skip to the content</a>'
        '<header class="top"><h1><bdi>'
        f'{html_text(survey.path.name, 120)}</bdi> <span class="product">training rows</span></h1>'
        f'<ul class="figures">{"".join(figures)}</ul></header>'
    )


def _faults(content: Content) -> str:
    survey = content.survey
    if not survey.wrong:
        verdict = _sentence(content.verdict)
        return f'<section class="notice good" id="faults"><p>{verdict}</p></section>'

    shown = "".join(f'<li dir="auto">{html_text(line, 400)}</li>' for line in survey.faults)
    more = survey.wrong - len(survey.faults)
    left = f"<p>and {more:,} more.</p>" if more > 0 else ""
    return (
        f'<section class="notice bad" id="faults"><h2>{counted(survey.wrong, "fault")}</h2>'
        f"<p><code>gmr train</code> refuses this file.</p><ol>{shown}</ol>{left}</section>"
    )


def _doubts(content: Content, drawn: _Drawn) -> str:
    if not content.doubts:
        return '<section id="doubts"><h2>Doubts</h2><p class="none">None was found.</p></section>'
    cards = "".join(_doubt(shown, drawn) for shown in content.doubts)
    return (
        f'<section id="doubts"><h2>{counted(len(content.doubts), "doubt")}</h2>'
        '<p class="hint">Rows can be learnt as they are; whether they should be is yours to'
        " say.</p>"
        f'<div class="doubts">{cards}</div></section>'
    )


def _doubt(shown: ShownDoubt, drawn: _Drawn) -> str:
    doubt = shown.doubt
    examples = "".join(
        drawn.row(example, place.side, place.remark) for place, example in shown.examples
    )
    details = ""
    if examples:
        details = f"<details><summary>Look at some</summary>{examples}</details>"
    return (
        f'<article class="doubt" id="doubt-{doubt.name}"><p class="amount">{doubt.amount}</p>'
        f'<h3>{_sentence(doubt.sentence)}</h3><div class="more">'
        f"{_places(doubt.places, doubt.count)}{details}</div></article>"
    )


def _sentence(text: str) -> str:
    """A sentence of ours, whose commands stand between backticks."""
    parts = html_text(text, 600).split("`")
    return "".join(
        f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts)
    )


def _places(places: Sequence[Place], count: int) -> str:
    if not places:
        return ""
    items = "".join(
        f'<li><span class="line">{place.line:,}</span> {html_text(place.side, 40)}'
        f' <span class="remark" dir="auto">{html_text(place.remark, 160)}</span></li>'
        for place in places
    )
    left = count - len(places)
    more = f'<li class="more">and {left:,} more</li>' if left > 0 else ""
    return f'<details class="places"><summary>Lines</summary><ol>{items}{more}</ol></details>'


def _charts(charts: Sequence[Chart]) -> str:
    figures = "".join(_figure(chart) for chart in charts)
    return (
        '<section id="charts"><h2>Balance and lengths</h2>'
        f'<div class="charts">{figures}</div></section>'
    )


def _figure(chart: Chart) -> str:
    names = "".join(
        f'<li class="part{number}">{name}</li>' for number, name in enumerate(legend(chart))
    )
    parts = f'<ul class="legend">{names}</ul>' if names else ""
    wide = ' class="wide"' if isinstance(chart, Bars) and chart.wide else ""
    note = plain_html(chart.note)
    return (
        f"<figure{wide}><figcaption><h3>{chart.title}</h3><p>{note}</p></figcaption>"
        f"{parts}{svg(chart)}</figure>"
    )


def _rows(rows: Iterable[Example], drawn: _Drawn) -> str:
    shown = "".join(map(drawn.row, rows))
    return (
        '<section id="rows"><h2>Rows</h2><p class="hint">Some of them, evenly spaced over the'
        f" file.</p>{shown}</section>"
    )


def _bottom(notes: Iterable[str]) -> str:
    lines = "".join(f"<p>{_sentence(note)}</p>" for note in notes)
    return f"<footer>{lines}<p>Made by <code>gmr data check</code>.</p></footer>"
