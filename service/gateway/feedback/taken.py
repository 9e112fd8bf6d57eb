"""Feedback that this process has taken: what is repeated is told from what is new.

The module depends on events, on no file. Feedback is a state, a click or not and the last grade of
each result: an event that changes nothing of it is repeated. Invariant: the memory is bounded, and
what is forgotten here is at worst written again, and counted once by its reader.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.feedback_api import FeedbackEvent

MAX_ANSWERS = 4_096
MAX_STATES = 500_000
"""States of all answers together, about 50 MB."""
MAX_LINES_AN_ANSWER = 200
"""Lines of events that one answer may have from one process."""


@dataclass(slots=True)
class TakenAnswer:
    """The feedback on one answer: states by index, a digest of what was shown, lines written."""

    states: dict[int, tuple[bool, int | None]] = field(default_factory=dict)
    shown: bytes | None = None
    lines: int = 0

    def knows(self, shown: Sequence[int] | None) -> bool:
        """True if nothing is said of what was shown, or the same as last."""
        return shown is None or _digest(shown) == self.shown

    def changes(
        self, events: Sequence[FeedbackEvent]
    ) -> tuple[dict[int, tuple[bool, int | None]], list[FeedbackEvent]]:
        """The states that events change, and the events that change one."""
        changed: dict[int, tuple[bool, int | None]] = {}
        new: list[FeedbackEvent] = []
        for event in events:
            clicked, grade = changed.get(event.index, self.states.get(event.index, (False, None)))
            after = clicked or bool(event.clicked), grade if event.grade is None else event.grade
            if after != (clicked, grade):
                changed[event.index] = after
                new.append(event)
        return changed, new


class TakenAnswers:
    """The answers that had feedback last."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, TakenAnswer] = OrderedDict()
        self._states = 0

    def of(self, answer: bytes) -> TakenAnswer:
        """The feedback on an answer so far."""
        return self._answers.get(answer) or TakenAnswer()

    def keep(
        self,
        answer: bytes,
        taken: TakenAnswer,
        changed: dict[int, tuple[bool, int | None]],
        shown: Sequence[int] | None,
    ) -> None:
        """Note that a line was written."""
        self._states += len(changed.keys() - taken.states.keys())
        taken.states |= changed
        taken.shown = taken.shown if shown is None else _digest(shown)
        taken.lines += 1
        self._answers[answer] = taken
        self._answers.move_to_end(answer)
        while len(self._answers) > MAX_ANSWERS or self._states > MAX_STATES:
            _, gone = self._answers.popitem(last=False)
            self._states -= len(gone.states)


def _digest(shown: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("I", shown).tobytes(), digest_size=16).digest()
