"""Checks of feedback against the answer that it is on.

The module depends on records and the form of feedback, on no store. Invariant: an event that passes
is on a result of the answer, and on one that was shown where the feedback says what was.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import InvalidRequest, Loc, Problem
from service.feedback_api import Feedback
from service.gateway.feedback.record import AnswerRecord

_NO_RESULT = "This must be the index of a result of that answer."
_NOT_SHOWN = "This must be the index of a result that was shown."
_TWICE = "This must be there once."


def shown_results(feedback: Feedback, record: AnswerRecord) -> tuple[int, ...] | None:
    """The indices of the results that the user saw, in the order of the page; None where the
    feedback does not say it."""
    if feedback.shown is None:
        return None
    if isinstance(feedback.shown, int):
        return tuple(result.index for result in record.results[: feedback.shown])
    return tuple(feedback.shown)


def check(feedback: Feedback, record: AnswerRecord, at: Loc = ()) -> None:
    """Raise `InvalidRequest` with the place of everything that does not fit the answer; `at` is the
    feedback's own place in the body."""
    known = {result.index for result in record.results}
    problems = list(_shown_problems(feedback, known, at))
    if not problems:
        problems = list(_event_problems(feedback, record, known, at))
    if problems:
        raise InvalidRequest(problems=problems)


def _shown_problems(feedback: Feedback, known: set[int], at: Loc) -> Sequence[Problem]:
    if not isinstance(feedback.shown, list):
        return ()
    problems: list[Problem] = []
    seen: set[int] = set()
    for number, index in enumerate(feedback.shown):
        if index not in known or index in seen:
            message = _TWICE if index in seen else _NO_RESULT
            problems.append(Problem((*at, "shown", number), message))
        seen.add(index)
    return problems


def _event_problems(
    feedback: Feedback, record: AnswerRecord, known: set[int], at: Loc
) -> Sequence[Problem]:
    shown = shown_results(feedback, record)
    visible = known if shown is None else set(shown)
    problems: list[Problem] = []
    for number, event in enumerate(feedback.events):
        if event.index not in visible:
            message = _NOT_SHOWN if event.index in known else _NO_RESULT
            problems.append(Problem((*at, "events", number, "index"), message))
    return problems
