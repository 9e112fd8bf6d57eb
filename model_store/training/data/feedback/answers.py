"""Answers that have feedback: the events of all files, joined and counted once.

Does not depend on contents. Invariant: whatever was written twice counts once; the last grade of a
result holds; an answer that was to be forgotten does not count.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from model_store.errors import DataError
from model_store.training.data.feedback.folder import FeedbackFolder, Place
from model_store.training.data.feedback.lines import (
    LONGEST_WINDOW_SECONDS,
    AnswerLine,
    ContentLine,
    EventsLine,
    ForgetLine,
    Line,
    decode_line,
)

MAX_ANSWERS = 2_000_000
"""Answers with feedback, and lines of content: about 1 GB of memory for answers of ten results."""


@dataclass(slots=True)
class Answer:
    """An answer with the feedback on it: `results` are indices, best first; `shown` those that the
    user saw, in the order of the page, where that is known."""

    id: str
    request_id: str
    tenant: str
    at: float
    results: tuple[int, ...]
    location: str
    shown: tuple[int, ...] | None = None
    clicked: set[int] = field(default_factory=set)
    grades: dict[int, int] = field(default_factory=dict)

    def displayed(self) -> tuple[int, ...]:
        """The results that the user saw, in order: without `shown`, those up to the last one that
        has an event."""
        if self.shown is not None:
            return self.shown
        has_event = self.clicked | self.grades.keys()
        last = max((at for at, index in enumerate(self.results) if index in has_event), default=-1)
        return self.results[: last + 1]

    def skipped(self) -> set[int]:
        """The results above the last click that were neither clicked nor graded: the user saw them,
        and went on."""
        displayed = self.displayed()
        last = max((at for at, index in enumerate(displayed) if index in self.clicked), default=-1)
        passed = set(displayed[: last + 1])
        return passed - self.clicked - self.grades.keys()


class Forgotten:
    """Requests and tenants that are to be forgotten, each with the last time that it is about."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str | None], float] = {}

    def add(self, line: ForgetLine) -> None:
        key = line.tenant, line.request_id
        self._until[key] = max(line.at, self._until.get(key, 0.0))

    def covers(self, tenant: str, request_id: str | None, at: float) -> bool:
        """True for a request of a tenant that was answered at a time."""
        until = max(
            self._until.get((tenant, request_id), -1.0), self._until.get((tenant, None), -1.0)
        )
        return at <= until


@dataclass(slots=True)
class Feedback:
    """The answers of a folder in the order of their files, the line of each content by its answer,
    and counts for the report."""

    answers: dict[str, Answer] = field(default_factory=dict)
    contents: dict[str, Place] = field(default_factory=dict)
    lines: int = 0
    events: int = 0
    repeated: int = 0
    forgotten: int = 0
    orphans: int = 0
    """Lines of events whose answer is in no file."""


def read_feedback(
    folder: FeedbackFolder, *, tenants: Collection[str] = (), since: float = 0.0
) -> Feedback:
    """The feedback of a folder on answers of some tenants (default: all), given at or after `since`
    (Unix seconds), also where the answer is older; raises `DataError`."""
    found, forgotten = Feedback(), Forgotten()
    listed: list[EventsLine] = []
    for place, line in folder.lines():
        found.lines += 1
        decoded = decode_line(line, place.location)
        if isinstance(decoded, ForgetLine):
            forgotten.add(decoded)
        elif (not tenants or decoded.tenant in tenants) and _is_wanted(decoded, since):
            _add(decoded, place, found, listed)
        if max(len(found.answers), len(found.contents), len(listed)) > MAX_ANSWERS:
            raise DataError(
                f"{place.location}: there is feedback on more than {MAX_ANSWERS:,} answers: take"
                " fewer at a time, with --since or --tenant."
            )

    with_events = {events.answer for events in listed}
    for answer in list(found.answers.values()):
        is_earlier = answer.at < since and answer.id not in with_events
        if is_earlier or forgotten.covers(answer.tenant, answer.request_id, answer.at):
            del found.answers[answer.id]
            found.contents.pop(answer.id, None)
            found.forgotten += not is_earlier
    for events in sorted(listed, key=lambda events: events.at):
        _join(events, found)
    return found


def _is_wanted(line: Line, since: float) -> bool:
    """True for feedback from a time on, and for an answer that may have such feedback."""
    begin = since if isinstance(line, EventsLine) else since - LONGEST_WINDOW_SECONDS
    return line.at >= begin


def _add(line: Line, place: Place, found: Feedback, listed: list[EventsLine]) -> None:
    if isinstance(line, ContentLine):
        found.contents[line.answer] = place
    elif isinstance(line, EventsLine):
        listed.append(line)
    elif isinstance(line, AnswerLine):
        found.answers[line.answer] = Answer(
            line.answer,
            line.request_id or "",
            line.tenant,
            line.at,
            tuple(result.index for result in line.results),
            place.location,
        )


def _join(line: EventsLine, found: Feedback) -> None:
    answer = found.answers.get(line.answer)
    if answer is None:
        found.orphans += 1
        return
    known = set(answer.results)
    if line.shown is not None:
        answer.shown = tuple(index for index in dict.fromkeys(line.shown) if index in known)
    for event in line.events:
        found.events += 1
        if event.index not in known:
            continue
        before = event.index in answer.clicked, answer.grades.get(event.index)
        if event.grade is not None:
            answer.grades[event.index] = event.grade
        if event.clicked:
            answer.clicked.add(event.index)
        found.repeated += before == (event.index in answer.clicked, answer.grades.get(event.index))
