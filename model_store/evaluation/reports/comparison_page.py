"""A comparison as Markdown, and as a picture of its differences.

Depends on a comparison, and for the picture on matplotlib. Invariant: equal comparisons give equal
pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from model_store.evaluation.reports.chart import (
    BLUE,
    INK,
    MAX_LINES,
    bare_axes,
    draw_interval,
    save,
    shortened,
)
from model_store.evaluation.reports.comparison import (
    Compared,
    Comparison,
    Difference,
    QueryDifference,
)
from model_store.evaluation.reports.files import writing
from model_store.evaluation.reports.markdown import (
    cell_text,
    interval,
    percent,
    signed,
    table,
)
from model_store.files import write_atomically

MARKDOWN, CHART, COMPARISON = "comparison.md", "comparison.png", "comparison.json"
_SHOWN_CHARS = 200
"""Characters of an instruction that are shown."""
_RED, _GREEN = "#c62828", "#2b9348"
_EXPLANATION = """\
## How to read it

- Values are from 0 to 100. *Difference* is B minus A, with the 95 % percentile interval of a paired
  bootstrap over queries (10,000 resamples, within each dataset).
- B is *better* or *worse* where the whole interval is above or below 0, and else *not told apart*
  from A: the choice of queries may explain the difference. More queries make intervals narrower.
- Of equal models, about one task in twenty is called better or worse by chance. The line *all* is
  the verdict, and single tasks are hints.
"""


def verdict(comparison: Comparison) -> str:
    """The comparison as one sentence."""
    whole = comparison.whole
    found = f"B is {whole.verdict} than A"
    if whole.verdict == "not told apart":
        found = "These queries do not tell B from A"
    failed = ""
    if comparison.a.failed or comparison.b.failed:
        failed = (
            f" Queries without scores: {comparison.a.failed:,} of A, {comparison.b.failed:,} of B;"
            " they count with the first stage's order."
        )
    return (
        f"{found} on {comparison.benchmark}: {whole.metric}"
        f" {percent(whole.b)} against {percent(whole.a)}, difference"
        f" {signed(whole.difference.value)}, 95 % interval"
        f" {interval(whole.difference, with_sign=True)} over {whole.queries:,} queries.{failed}"
    )


def comparison_page(comparison: Comparison) -> str:
    """The page of a comparison."""
    parts = [f"# {verdict(comparison)}", _models(comparison), *_notes(comparison)]
    if 1 < len(comparison.cells) < len(comparison.rows):
        lines = [*comparison.cells, comparison.whole]
        parts.append("## Cells\n\n" + _table(comparison, lines, "Cell"))
    if len(comparison.rows) > 1:
        lines = [*comparison.rows, comparison.whole]
        parts.append("## Tasks\n\n" + _table(comparison, lines, "Task"))

    for title, queries in (("lose", comparison.losses), ("gain", comparison.gains)):
        if queries:
            parts.append(f"## Queries that {title} most\n\n" + _queries(queries))
    changed = comparison.whole.queries - comparison.equal
    parts.append(
        f"{changed:,} of {comparison.whole.queries:,} queries have another value in B than in A."
    )
    parts.append(_EXPLANATION)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write the page, the picture and the JSON of a comparison into a folder, each whole or not at
    all. Raises `ResultsUnusable`, and `ModuleNotFoundError` without matplotlib."""
    with writing(folder):
        draw_differences(comparison, folder / CHART)
        write_atomically(folder / MARKDOWN, comparison_page(comparison).encode())
        encoded = msgspec.json.format(msgspec.json.encode(comparison), indent=1)
        write_atomically(folder / COMPARISON, encoded + b"\n")


def draw_differences(comparison: Comparison, path: Path) -> None:
    """Draw the differences as a PNG, whole or not at all; raises `OSError`."""
    from matplotlib.figure import Figure  # with no window and no global state

    lines = [comparison.whole]
    if 1 < len(comparison.cells) < min(len(comparison.rows), MAX_LINES):
        lines += comparison.cells
    if 1 < len(comparison.rows) <= MAX_LINES:
        lines += comparison.rows
    figure = Figure(figsize=(9, 1.4 + 0.27 * (len(lines) + 1)), layout="constrained")
    axes: Any = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, line in enumerate(lines):
        _draw_difference(axes, place, line)

    names = ["all" if line is comparison.whole else shortened(line.name) for line in lines]
    labels = [
        f"{name}  {signed(line.difference.value)}" for name, line in zip(names, lines, strict=True)
    ]
    bold = [line is comparison.whole or line in comparison.cells for line in lines]
    bare_axes(axes, labels, bold)
    axes.set(xlabel="B minus A, in points of 100, with 95 % intervals")
    title = f"{_short(comparison.b)} (B) against {_short(comparison.a)} (A): {comparison.benchmark}"
    figure.suptitle(title.replace("$", r"\$"), fontsize=12, fontweight="bold", color=INK)
    save(figure, path)


def _draw_difference(axes: Any, place: int, line: Difference) -> None:
    estimate = line.difference
    color = BLUE if not estimate.differs_from_zero else _GREEN if estimate.value > 0 else _RED
    draw_interval(axes, place, estimate, color=color)


def _short(compared: Compared) -> str:
    digest = compared.checkpoint.removeprefix("sha256:")[:8]
    return f"{shortened(compared.model)} {digest}".strip()


def _models(comparison: Comparison) -> str:
    rows: list[list[str]] = []
    for name, each in (("A", comparison.a), ("B", comparison.b)):
        rows.append([name, cell_text(each.model), f"`{each.checkpoint}`", f"{each.failed:,}"])
    return table(["", "Model", "Digest", "Failed queries"], rows, texts=3)


def _notes(comparison: Comparison) -> Iterator[str]:
    if comparison.a.checkpoint == comparison.b.checkpoint:
        yield "> **A and B are the same model**, by its digest."
    if comparison.a.instruction != comparison.b.instruction:
        yield (
            "> **A and B have different instructions**, which may explain the difference. A:"
            f" {_instruction(comparison.a)}. B: {_instruction(comparison.b)}."
        )
    if comparison.a.unfinished or comparison.b.unfinished:
        yield (
            "> **The runs are not finished**: only the queries that both have scored are compared."
        )
    if comparison.a.failed or comparison.b.failed:
        yield (
            "> Queries that failed count with the first stage's order, so that a model which fails"
            " may look better than it is. The same command scores them once more."
        )


def _instruction(compared: Compared) -> str:
    if not compared.instruction:
        return "that of each task"
    text = cell_text(compared.instruction)
    return f"“{text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + '…'}”"


def _table(comparison: Comparison, lines: Sequence[Difference], title: str) -> str:
    of_tasks = title == "Task"
    header = [title, *(["Metric"] if of_tasks else ["Tasks"])]
    header += ["Queries", "A", "B", "Difference, 95 %", "B is"]
    rows: list[list[str]] = []
    for line in lines:
        rows.append(
            [
                "**all**" if line is comparison.whole else cell_text(line.name),
                line.metric if of_tasks else str(line.rows),
                f"{line.queries:,}",
                percent(line.a),
                percent(line.b),
                f"{signed(line.difference.value)} {interval(line.difference, with_sign=True)}",
                line.verdict,
            ]
        )
    return table(header, rows, texts=2 if of_tasks else 1)


def _queries(queries: Sequence[QueryDifference]) -> str:
    rows: list[list[str]] = []
    for each in queries:
        values = [percent(each.a), percent(each.b), signed(each.b - each.a)]
        rows.append([cell_text(each.dataset), cell_text(each.query), *values])
    return table(["Dataset", "Query", "A", "B", "Difference"], rows, texts=2)
