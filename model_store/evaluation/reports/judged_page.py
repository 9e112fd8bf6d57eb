"""The page of two models on one's own judged queries: the verdict, and what it can tell.

Does not depend on files or services. Invariant: where the judgements are clicks, the page says what
clicks cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_store.evaluation.bootstrap import Estimate
from model_store.evaluation.reports.comparison import Comparison
from model_store.evaluation.reports.comparison_page import verdict
from model_store.evaluation.reports.markdown import (
    cell_text,
    headline,
    interval,
    percent,
    signed,
    table,
)
from model_store.evaluation.reports.report import Report
from model_store.evaluation.tasks.readers.judged_folder import JudgedFolder

_CLICKS = """\
## What clicks can tell

A click is no judgement of relevance. What is shown higher is seen and clicked more, and what was
shown far below is hardly ever clicked, however relevant it is. So the order that was shown has an
advantage in every number of this page, and so has the model that ranks more like it. A document
that nobody clicked counts as irrelevant, which it may not be.

- That a model is below the order that was shown does not say that it is worse than that order.
- A difference between A and B says that one of them moves the documents that were clicked further
  up. It is a hint where both differ from the order that was shown about as much as each other.
- Whether users are better served is told by grades that people give to the documents of these
  queries, or by an experiment: interleaved results, or A and B for two groups of users.
"""
_GRADES = """\
## What grades can tell

Documents without a grade count as irrelevant. If only the documents that one system had ranked high
were graded, that system has an advantage: have people grade what A and B rank among the first.
"""


def judged_page(comparison: Comparison, a: Report, b: Report, judged: JudgedFolder | None) -> str:
    """The page. `judged` is None where the queries come in another layout, with grades."""
    parts = [
        f"# {verdict(comparison)}",
        _systems(comparison, a, b),
        "[A's report](a/report/report.md) and [B's report](b/report/report.md) have the details of"
        " each model, and [comparison.md](comparison.md) the queries that differ most.",
    ]
    for name, report in (("A", a), ("B", b)):
        _, *notes = headline(report)
        parts += [f"> {name}: {note}" for note in notes]

    if judged is not None:
        parts.append(_judgements(judged))
    parts.append(_CLICKS if judged is not None and judged.kind == "clicks" else _GRADES)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _systems(comparison: Comparison, a: Report, b: Report) -> str:
    """The order that was shown, both models, and the best order, one below the other."""
    whole = comparison.whole
    shown = "" if whole.metric == "" else f" {whole.metric}"
    rows: list[Sequence[str]] = [["Order that was shown", "", percent(a.whole.first_stage), ""]]
    for name, report in (("A", a), ("B", b)):
        line = report.whole
        rows.append(
            [
                f"{name}: {cell_text(report.subject.model)}",
                f"`{_version(report)}`",
                _with_interval(line.score),
                f"{signed(line.gain.value)} {interval(line.gain, with_sign=True)}",
            ]
        )
    difference = whole.difference
    rows += [
        [
            "B minus A",
            "",
            f"**{signed(difference.value)}** {interval(difference, with_sign=True)}",
            "",
        ],
        ["Best order", "", percent(a.whole.perfect), ""],
    ]
    return table(
        ["", "Digest", f"Score{shown}, 95 %", "Above the shown order, 95 %"], rows, texts=2
    )


def _with_interval(estimate: Estimate) -> str:
    return f"**{percent(estimate.value)}** {interval(estimate)}"


def _version(report: Report) -> str:
    digest = report.subject.checkpoint or report.subject.model_digest
    return digest.removeprefix("sha256:")[:12]


def _judgements(judged: JudgedFolder) -> str:
    """The judgements by the position at which documents were shown."""
    clicked = judged.kind == "clicks"
    rows: list[Sequence[str]] = []
    positions = judged.positions
    for position, (shown, relevant) in enumerate(
        zip(positions.shown, positions.relevant, strict=True), start=1
    ):
        if shown:
            rows.append([str(position), f"{shown:,}", f"{relevant:,}", f"{relevant / shown:.1%}"])
    left_out = ""
    if judged.without_relevant:
        of_them = "a click" if clicked else "a relevant document"
        left_out = (
            f"{judged.without_relevant:,} queries without {of_them} were left out: they cannot tell"
            " the models apart.\n\n"
        )
    header = ["Shown at", "Documents", "Clicked" if clicked else "Relevant", "Share"]
    title = "## Clicks by position" if clicked else "## Relevant documents by position"
    return f"{title}\n\n{left_out}{table(header, rows, texts=0)}"
