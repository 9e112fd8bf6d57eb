"""Training rows and judged queries of feedback.

Does not depend on how feedback was counted. Invariant: equal feedback gives equal files, whatever
order its files were written in; both outputs appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_store.errors import DataError
from model_store.output_files import check_outputs, json_line, output_file, write_json
from model_store.training.data.feedback.answers import Answer, Feedback, read_feedback
from model_store.training.data.feedback.contents import (
    AnswerContents,
    Contents,
    FolderContents,
    LogContents,
)
from model_store.training.data.feedback.folder import FeedbackFolder
from model_store.training.data.feedback.pairs import Pair, Pairs, QueryPairs, Thresholds
from model_store.training.data.image_files import ImageMode
from model_store.training.data.row_files import example_line, side_row
from model_store.training.data.rows import MAX_SIDES, Example, Negative, Side

JUDGEMENTS = "judgements.jsonl"
_JUDGED_DOCUMENTS = 1_000
_ID_CHARS = 16


@dataclass(slots=True)
class RowCounts:
    """Counts of what was written, and of what was left out."""

    rows: int = 0
    positives: int = 0
    negatives: int = 0
    without_positive: int = 0
    without_negative: int = 0
    undecided: int = 0
    """Pairs of too little feedback to tell."""
    judged: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """The feedback to read: a folder, perhaps with the operator's log, and a part of it."""

    folder: Path
    log: Path | None = None
    tenants: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The feedback that was read, its pairs, and counts of what was written and left out."""

    feedback: Feedback
    pairs: Pairs
    left_out: dict[str, int]
    counts: RowCounts


def write_rows(
    source: Source,
    target: Path,
    thresholds: Thresholds,
    *,
    judgements: Path | None = None,
    image_mode: ImageMode = "copy",
) -> Outcome:
    """Write the rows of a folder's feedback, and its judged queries where a folder for them is
    given; raises `DataError`, also where there would be no row."""
    judged_file = [] if judgements is None else [judgements / JUDGEMENTS]
    check_outputs(target, *judged_file, inputs=[source.log] if source.log else [])
    folder = FeedbackFolder(source.folder)
    feedback = read_feedback(folder, tenants=source.tenants, since=source.since)
    contents: Contents = FolderContents(folder, feedback.contents)
    if source.log is not None:
        contents = LogContents(source.log, feedback.answers)

    pairs, counts = Pairs(), RowCounts()
    for answer in feedback.answers.values():
        pairs.add(answer, contents)
    left_out = dict(contents.left_out)  # contents may be read again below, and count once

    queries = sorted(pairs, key=lambda query: query.key)
    has_grades = any(pair.grades for query in queries for pair in query.pairs.values())
    with output_file(target) as write:
        for example in _examples(queries, contents, thresholds, counts):
            write(example_line(example, target.parent, image_mode))
        if not counts.rows:
            raise DataError(_no_row(source, feedback, pairs, counts))
        for path in judged_file:
            with output_file(path) as write_judged:
                for row in _judged(queries, contents, path.parent, image_mode, graded=has_grades):
                    write_judged(json_line(row))
                    counts.judged += 1

    outcome = Outcome(feedback, pairs, left_out, counts)
    write_json(target.with_name(target.name + ".report.json"), report_of(outcome, thresholds))
    return outcome


def report_of(outcome: Outcome, thresholds: Thresholds) -> dict[str, Any]:
    """The counts of an outcome as JSON."""
    feedback = outcome.feedback
    return {
        "thresholds": asdict(thresholds),
        "lines": feedback.lines,
        "events": feedback.events,
        "repeated_events": feedback.repeated,
        "forgotten_answers": feedback.forgotten,
        "events_without_answer": feedback.orphans,
        "answers": asdict(outcome.pairs.counts),
        "rows": asdict(outcome.counts),
        "left_out": outcome.left_out,
    }


def _examples(
    queries: Iterable[QueryPairs], contents: Contents, at: Thresholds, counts: RowCounts
) -> Iterator[Example]:
    for query in queries:
        positives: list[tuple[float, bytes, Side]] = []
        negatives: list[tuple[float, bytes, Side]] = []
        for key, pair in query.pairs.items():
            verdict = pair.verdict(at)
            if verdict is None:
                counts.undecided += 1
                continue
            side = _contents(pair.answer, contents).documents[pair.index]
            same = positives if verdict == "positive" else negatives
            same.append((-_strength(pair), key, side))

        if not positives:
            counts.without_positive += 1
            continue
        relevant, irrelevant = _strongest(positives), _strongest(negatives)
        counts.rows += 1
        counts.positives += len(relevant)
        counts.negatives += len(irrelevant)
        counts.without_negative += not irrelevant
        found = _contents(query.answer, contents)
        assert found.query is not None
        yield Example(
            id=f"feedback/{query.key.hex()[:_ID_CHARS]}",
            instruction=found.instruction,
            query=found.query,
            positives=relevant,
            negatives=tuple(Negative(side, "hard") for side in irrelevant),
            location=query.answer.location,
        )


def _strength(pair: Pair) -> float:
    """The amount of feedback on a pair: a row has the documents with the most."""
    return pair.grade_sum + pair.clicks + pair.skips


def _strongest(found: list[tuple[float, bytes, Side]]) -> tuple[Side, ...]:
    return tuple(side for _, _, side in sorted(found, key=lambda each: each[:2])[:MAX_SIDES])


def _judged(
    queries: Iterable[QueryPairs],
    contents: Contents,
    folder: Path,
    image_mode: ImageMode,
    *,
    graded: bool,
) -> Iterator[dict[str, Any]]:
    """Judged queries with their documents in the order of their mean positions: with clicks or,
    where anything was graded, with grades, of which a click is at least 1."""
    for query in queries:
        found = _contents(query.answer, contents)
        ordered = sorted(
            query.pairs.items(),
            key=lambda each: (each[1].position_sum / each[1].impressions, each[0]),
        )
        documents: list[dict[str, Any]] = []
        for _, pair in ordered[:_JUDGED_DOCUMENTS]:
            side = _contents(pair.answer, contents).documents[pair.index]
            documents.append(side_row(side, folder, image_mode) | _judgement(pair, graded=graded))
        assert found.query is not None
        row: dict[str, Any] = {"id": query.key.hex()[:_ID_CHARS]}
        if found.instruction is not None:
            row["instruction"] = found.instruction
        yield row | {"query": side_row(found.query, folder, image_mode), "documents": documents}


def _judgement(pair: Pair, *, graded: bool) -> dict[str, int]:
    if not graded:
        return {"clicks": pair.clicks}
    if pair.grades:
        return {"grade": round(pair.mean_grade())}
    return {"grade": int(pair.clicks > 0)}


def _contents(answer: Answer, contents: Contents) -> AnswerContents:
    """The contents of an answer that has been read before."""
    found = contents.of(answer)
    if found is None or found.query is None:
        raise DataError(f"{answer.location}: the contents of the answer have changed.")
    return found


def _no_row(source: Source, feedback: Feedback, pairs: Pairs, counts: RowCounts) -> str:
    """The sentence for feedback that gives no row, with the most likely reason."""
    if not feedback.answers:
        return f"{source.folder}: there is no feedback on any answer."
    given = pairs.counts
    reasons: Sequence[tuple[int, str]] = (
        (
            given.without_content,
            "answers have no content here: give --log, or have the service"
            " keep it (RERANK_FEEDBACK_CONTENT)",
        ),
        (given.without_signal, "answers have neither clicks nor grades"),
        (counts.without_positive, "queries have no document that is clicked or graded enough"),
    )
    most, reason = max(reasons)
    return f"{source.folder}: the feedback gives no row: {most} {reason}."
