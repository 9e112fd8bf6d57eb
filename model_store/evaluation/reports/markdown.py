"""A report as Markdown, for people: scores from 0 to 100, as papers print them.

Does not depend on how values are measured. Invariant: equal reports give equal pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from model_store.evaluation.bootstrap import Estimate
from model_store.evaluation.gate import MIN_QUERIES
from model_store.evaluation.reports.report import Line, Report

_EXPLANATION = """\
## How to read it

- Scores are from 0 to 100. A task is the mean over its queries (over its datasets, where it has
  several); a cell and the whole are plain means over their tasks.
- Intervals are 95 % percentile intervals of a bootstrap over queries (10,000 resamples, within each
  dataset). They say how much the choice of queries matters, and nothing about other data.
- *First stage* is the metric of the candidates in the order in which the first stage returned them,
  and *gain* the score minus it, with a paired interval.
- *Perfect* is the metric of the best order of the same candidates: no reranker can exceed it. *Of
  possible* is the gain's share of what the first stage leaves to gain.
- *Recall* is the share of the relevant documents that the first stage returned as candidates.
- Equal scores keep the first stage's order. Refused documents rank last in that order, and so do
  all documents of a query that failed: such a query counts with the first stage's value.
"""
_SYSTEMS = """\
- The last columns are the paper's values (table 14), whose rerankers reorder the 100 best
  candidates of GME-2B. A difference to them has no interval, and means little with another first
  stage.
"""


def to_markdown(report: Report) -> str:
    """The page of a report."""
    subject, whole = report.subject, report.whole
    title = f"{cell_text(subject.model)} on {cell_text(subject.benchmark)}"
    result, *notes = headline(report)
    parts = [f"# {title}: {percent(whole.score.value)}", result]
    parts += [f"> {note}" for note in notes]
    parts.append(_facts(report))
    if len(report.rows) > 1:
        if 1 < len(report.cells) < len(report.rows):
            parts.append("## Cells\n\n" + _table(report, [*report.cells, report.whole], "Cell"))
        parts.append("## Tasks\n\n" + _table(report, [*report.rows, report.whole], "Task"))
    else:
        parts.append("## Task\n\n" + _table(report, report.rows, "Task"))

    parts += _refusals(report)
    parts.append(_EXPLANATION + (_SYSTEMS if report.systems else ""))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def percent(value: float) -> str:
    """A value from 0 to 1 as papers print it."""
    return f"{100 * value:.2f}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{100 * value:+.2f}"


def interval(estimate: Estimate, *, with_sign: bool = False) -> str:
    """The ends of an estimate's interval."""
    number = signed if with_sign else percent
    return f"[{number(estimate.low)}, {number(estimate.high)}]"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int = 1) -> str:
    """A table of Markdown; the first `texts` columns are texts, the others numbers."""
    rules = ["---"] * texts + ["--:"] * (len(header) - texts)
    lines = [header, rules, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell_text(text: str) -> str:
    """A name as the text of a table's cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def headline(report: Report) -> Iterator[str]:
    """The result in a few sentences, and what is missing or has failed."""
    whole = report.whole
    rows = f", the mean of {whole.rows} tasks" if whole.rows > 1 else ""
    metric = f" {whole.metric}" if whole.metric else ""
    yield (
        f"{report.subject.model} on {report.subject.benchmark}:{metric}"
        f" {percent(whole.score.value)} {interval(whole.score)}{rows}. The first stage's own order"
        f" has {percent(whole.first_stage)}: the gain is {signed(whole.gain.value)}"
        f" {interval(whole.gain, with_sign=True)}. A perfect reranker of the same candidates would"
        f" have {percent(whole.perfect)}."
    )
    yield from _notes(report)


def _notes(report: Report) -> Iterator[str]:
    """Notes before the figures: data that is missing, and queries that failed."""
    counts = report.whole.counts
    if counts.queries < report.expected or report.missing:
        missing = f" Without results: {', '.join(report.missing)}." if report.missing else ""
        yield (
            f"The run is not finished: {counts.queries:,} of {report.expected:,} queries are in"
            f" this report.{missing} The same command continues it."
        )
    if counts.failed:
        yield (
            f"Queries that failed: {counts.failed:,} of {counts.queries:,}. They have the first"
            " stage's order here; the same command scores them once more."
        )
    few = sum(line.counts.queries < MIN_QUERIES for line in report.rows)
    if few:
        yield (
            f"Tasks with fewer than {MIN_QUERIES} queries: {few} of {len(report.rows)}. Intervals"
            " of so few are too narrow."
        )
    if report.whole.first_stage == 0 < report.whole.perfect:
        yield (
            "The first stage's order has 0.00: no relevant document is among its first, as in files"
            " of rows, where they are listed last. The gain is the score."
        )
    if not report.whole.perfect:
        yield "No relevant document is among the candidates: every order of them has 0.00."
    if counts.refused:
        yield f"Refused documents: {counts.refused:,}, of {counts.with_refused:,} queries."
    if counts.without_relevant:
        yield (
            f"Queries without a relevant document: {counts.without_relevant:,}. They count as 0"
            " whatever the order."
        )


def _facts(report: Report) -> str:
    subject, counts = report.subject, report.whole.counts
    cached = f" ({counts.cached_pairs / counts.pairs:.0%} from the cache)" if counts.pairs else ""
    facts = [
        ("Model", cell_text(subject.model)),
        ("Digest", f"`{subject.model_digest}`"),
        ("Checkpoint", f"`{subject.checkpoint}`" if subject.checkpoint else "without a manifest"),
        ("First stage", f"{cell_text(subject.first_stage)}, top {subject.top_k}"),
        ("Instruction", cell_text(subject.instruction or "that of each task")),
        ("Queries", f"{counts.queries:,}"),
        ("Pairs", f"{counts.pairs:,}{cached}"),
        ("Prompt tokens", f"{counts.prompt_tokens:,}"),
    ]
    return table(["", ""], facts, texts=2)


def _table(report: Report, lines: Sequence[Line], title: str) -> str:
    of_tasks = title == "Task"
    header = [title, "Metric" if of_tasks else "Tasks", "Queries", "First stage"]
    header += ["Score, 95 %", "Gain, 95 %", "Perfect", "Of possible", "Recall"]
    header += map(cell_text, report.systems)
    rows = [_row(report, line, of_tasks=of_tasks) for line in lines]
    return table(header, rows, texts=2 if of_tasks else 1)


def _row(report: Report, line: Line, *, of_tasks: bool) -> list[str]:
    possible = line.perfect - line.first_stage
    published = [
        percent(line.systems[system]) if system in line.systems else "" for system in report.systems
    ]
    return [
        "**all**" if line is report.whole else cell_text(line.name),
        line.metric if of_tasks else str(line.rows),
        f"{line.counts.queries:,}",
        percent(line.first_stage),
        f"**{percent(line.score.value)}** {interval(line.score)}",
        f"{signed(line.gain.value)} {interval(line.gain, with_sign=True)}",
        percent(line.perfect),
        f"{line.gain.value / possible:.0%}" if possible > 1e-9 else "",
        percent(line.recall),
        *published,
    ]


def _refusals(report: Report) -> Iterator[str]:
    """The rows with queries that failed or had documents refused, if there are some."""
    rows: list[list[str]] = []
    for line in report.rows:
        counts = line.counts
        if counts.failed or counts.refused:
            numbers = (counts.queries, counts.failed, counts.with_refused, counts.refused)
            rows.append([cell_text(line.name), *(f"{number:,}" for number in numbers)])
    if rows:
        header = ["Task", "Queries", "Failed", "With refused documents", "Refused documents"]
        yield "## Failures\n\n" + table(header, rows)
