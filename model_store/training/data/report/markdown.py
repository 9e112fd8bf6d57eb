"""A report as one Markdown file: tables, bars of characters, and thumbnails at its end.

Depends on the content of a report. Invariant: what rows hold is text; pictures are references whose
data stand at the end of the file, so that the rest can be read as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from model_store.training.data.doubts.doubt import Place, counted
from model_store.training.data.report.content import (
    Bars,
    Chart,
    Content,
    NamedSide,
    Points,
    ShownDoubt,
    first_sides,
)
from model_store.training.data.report.escaping import markdown_text
from model_store.training.data.report.thumbnails import Thumbnails
from model_store.training.data.rows import Example, Side

_BAR = 30
_PARTIAL = " ▏▎▍▌▋▊▉"
_MOST_NEGATIVES = 3
_TEXT = 160


def markdown_report(content: Content) -> str:
    """The text of a report."""
    pictures = _Pictures()
    survey = content.survey
    lines = [f"# {markdown_text(survey.path.name, 120)}: training rows", ""]
    figures = [*content.figures, ("faults", survey.wrong), ("doubts", len(survey.doubts))]
    lines += _table([name for name, _ in figures], [[f"{number:,}" for _, number in figures]])
    lines += ["", *_faults(content), *_doubts(content.doubts, pictures)]
    lines += ["## Balance and lengths", ""]
    for chart in content.charts:
        lines += _chart(chart)

    lines += ["## Rows", "", "Some of them, evenly spaced over the file.", ""]
    lines += _rows([(None, example) for example in content.rows], pictures)
    for note in content.notes:
        lines += ["", note]
    return "\n".join([*lines, "", *pictures.definitions()]) + "\n"


class _Pictures:
    """Thumbnails by short names, in the order in which they are first shown."""

    def __init__(self) -> None:
        self._thumbnails = Thumbnails()
        self._names: dict[str, str] = {}

    def shown(self, side: Side) -> str:
        """A side's picture as a reference, or its name where it cannot be shown."""
        if side.image is None:
            return ""
        uri = self._thumbnails.uri(side.image)
        if uri is None:
            return f"*no picture: {markdown_text(side.image.name, 60)}*"
        name = self._names.setdefault(uri, f"picture-{len(self._names) + 1}")
        return f"![{markdown_text(side.image.name, 40)}][{name}]"

    def definitions(self) -> Iterator[str]:
        """The data of each picture."""
        for uri, name in self._names.items():
            yield f"[{name}]: {uri}"


def _faults(content: Content) -> Iterator[str]:
    survey = content.survey
    if not survey.wrong:
        yield content.verdict
        yield ""
        return

    yield f"## {counted(survey.wrong, 'fault')}"
    yield ""
    for line in survey.faults:
        yield f"- {markdown_text(line, 400)}"
    more = survey.wrong - len(survey.faults)
    if more > 0:
        yield f"- and {more:,} more"
    yield ""


def _doubts(doubts: Sequence[ShownDoubt], pictures: _Pictures) -> Iterator[str]:
    yield f"## {counted(len(doubts), 'doubt')}" if doubts else "## Doubts"
    yield ""
    if not doubts:
        yield "None was found."
        yield ""
    for shown in doubts:
        doubt = shown.doubt
        yield f"### {doubt.amount}"
        yield ""
        yield doubt.sentence
        yield ""
        if doubt.places:
            lines = ", ".join(_place(place) for place in doubt.places)
            more = doubt.count - len(doubt.places)
            yield f"Lines: {lines}{f' and {more:,} more' if more > 0 else ''}"
            yield ""
        yield from _rows(shown.examples, pictures)


def _place(place: Place) -> str:
    remark = f" ({markdown_text(place.remark, 120)})" if place.remark else ""
    return f"{place.line}{remark}"


def _rows(examples: Sequence[tuple[Place | None, Example]], pictures: _Pictures) -> Iterator[str]:
    """Rows as a table, the side that is meant in bold."""
    if not examples:
        return
    rows: list[list[str]] = []
    for place, example in examples:
        mark = place.side if place is not None else ""
        documents = list(example.named_documents())
        positives = documents[: len(example.positives)]
        negatives = documents[len(example.positives) :]
        rows.append(
            [
                str(example.line),
                _sides([("query", example.query)], 1, mark, pictures),
                _sides(positives, 2, mark, pictures),
                _sides(negatives, _MOST_NEGATIVES, mark, pictures),
            ]
        )
    yield from _table(["line", "query", "relevant", "not relevant"], rows)
    yield ""


def _sides(sides: Sequence[NamedSide], most: int, mark: str, pictures: _Pictures) -> str:
    """The first sides of a cell, the marked one among them."""
    shown = first_sides(sides, most, mark)
    cells: list[str] = []
    for name, side in shown:
        text = markdown_text(side.text, _TEXT) if side.text else ""
        cell = " ".join(filter(None, (pictures.shown(side), text)))
        cells.append(f"**⚠** {cell}" if name == mark else cell)

    left = len(sides) - len(shown)
    if left:
        cells.append(f"*and {left:,} more*")
    return "<br>".join(cells)


def _chart(chart: Chart) -> Iterator[str]:
    yield f"### {chart.title}"
    yield ""
    yield chart.note
    yield ""
    if isinstance(chart, Points):
        sizes = sorted(chart.sizes, key=lambda size: -size[2])[:12]
        most = max(count for _, _, count in sizes)
        rows = [
            [f"{width} x {height}", f"{count:,}", _bar(count, most)]
            for width, height, count in sizes
        ]
        yield from _table(["size", "pictures", ""], rows)
    else:
        yield from _bars(chart)
    yield ""


def _bars(chart: Bars) -> Iterator[str]:
    most = max((max(amounts) for _, amounts in chart.rows), default=0) or 1
    heads = [""]
    for part in chart.parts:
        heads += [part, ""]

    rows: list[list[str]] = []
    for name, amounts in chart.rows:
        cells = [markdown_text(name, 60)]
        for amount in amounts:
            cells += [f"{amount:,}", _bar(amount, most)]
        rows.append(cells)

    yield from _table(heads, rows)


def _bar(amount: int, most: int) -> str:
    """A bar of characters, to an eighth of one."""
    eighths = round(8 * _BAR * amount / most)
    if amount and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _PARTIAL[eighths % 8].strip()


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
