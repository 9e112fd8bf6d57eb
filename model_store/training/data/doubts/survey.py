"""A survey of a file of rows: its faults, its doubts, and statistics.

Depends on the detectors of this room. The file is read twice: all rows for what is cheap, and then
some of them, evenly spaced, for what compares texts, decodes pictures, or runs a tokenizer or a
retriever. Invariant: faults are those of `validation.check`, and pictures that cannot be decoded;
memory does not grow with texts, but by `LabelDoubts`' bytes a row, and by a bounded sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from model_store.errors import DataError
from model_store.training.data.doubts.conflicts import Conflicts
from model_store.training.data.doubts.copies import CopiesInRows, HeldOutCopies
from model_store.training.data.doubts.doubt import Detector, Doubt
from model_store.training.data.doubts.fields import FieldDoubts
from model_store.training.data.doubts.labels import LabelDoubts
from model_store.training.data.doubts.lengths import TokenCounts
from model_store.training.data.doubts.pictures import PictureDoubts
from model_store.training.data.doubts.run_plan import size_command
from model_store.training.data.doubts.scores import Rows, Scorer, score_doubts
from model_store.training.data.doubts.statistics import Statistics
from model_store.training.data.doubts.texts import TextDoubts
from model_store.training.data.rows import Example, parse_row, read_examples, read_lines
from model_store.training.data.splits import Leaks, leaks
from model_store.training.data.validation import ValidationReport, check

MAX_SAMPLE_BYTES = 2**27
"""Bytes of the lines of a sample, which is in memory."""
COMPARED_ROWS = 50_000
"""Rows that are compared with held-out ones, at least."""

Progress = Callable[[int], None]
OpenScorer = Callable[[Rows], Scorer]


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of a survey."""

    decode: bool = False
    held_out: Path | None = None
    sample: int = 5_000
    """Rows for what is not cheap."""
    tokens: TokenCounts | None = None
    open_scorer: OpenScorer | None = None


@dataclass(slots=True)
class Survey:
    """All that is known about a file of rows."""

    path: Path
    report: ValidationReport
    statistics: Statistics
    doubts: list[Doubt] = field(default_factory=list)
    leaks: Leaks | None = None
    sampled: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of the sample's pictures."""
    tokens: TokenCounts | None = None
    not_compared: int = 0
    """Held-out texts beyond the bounds, whose near copies were not looked for."""

    @property
    def notes(self) -> list[str]:
        """Sentences on what was not looked at."""
        notes: list[str] = []
        if self.is_sampled:
            notes.append(
                f"Near copies, pictures, tokens and retriever: {self.sampled:,} of"
                f" {self.statistics.rows:,} rows, evenly spaced. All else: every row."
            )
        if self.not_compared:
            notes.append(
                f"Near copies of {self.not_compared:,} held-out texts were not looked for: they are"
                " beyond the bounds."
            )
        return notes

    @property
    def is_sampled(self) -> bool:
        """True where some of the rows that can be read are not in the sample."""
        return self.sampled < self.statistics.rows

    @property
    def size_command(self) -> str | None:
        """The command that plans a run on these rows; None where no row can be read."""
        if not self.statistics.rows:
            return None
        return size_command(self.statistics, self.tokens, self.sizes)

    @property
    def faults(self) -> list[str]:
        """Sentences on the first faults and leaks."""
        return [*self.report.problems, *(self.leaks.sentences if self.leaks else ())]

    @property
    def wrong(self) -> int:
        """The number of faults and leaks."""
        return self.report.wrong + (self.leaks.total if self.leaks else 0)


def survey(path: Path, options: Options, progress: Progress = lambda rows: None) -> Survey:
    """Read a file and judge it; `progress` is called with rows that were looked at.

    Raises `DataError` where the held-out rows cannot be read, which are read first, or a retriever
    refuses.
    """
    near = None if options.held_out is None else HeldOutCopies(read_examples(options.held_out))
    statistics, labels = Statistics(), LabelDoubts()
    texts = TextDoubts(estimates_tokens=options.tokens is None)
    detectors: list[Detector] = [labels, texts, FieldDoubts()]

    def visit(example: Example) -> None:
        line = example.line
        statistics.see(example, line)
        for detector in detectors:
            detector.see(example, line)

    report = check(path, decode=options.decode, progress=progress, visit=visit)
    result = Survey(path, report, statistics, tokens=options.tokens)
    result.not_compared = 0 if near is None else near.left_out
    again = _Again(options, report.rows, labels.repeated_queries(), near)
    again.look(path, progress)
    result.doubts += again.doubts()
    result.sampled, result.sizes = len(again.sample), again.pictures.sizes
    for fault in again.pictures.faults:
        report.add(fault)

    if options.open_scorer is not None and not report.wrong:
        scorer = options.open_scorer(again.sample)
        result.doubts += score_doubts(again.sample, scorer, progress)
    if options.held_out is not None and not report.wrong:
        result.leaks = leaks(path, options.held_out)
    for detector in detectors:
        result.doubts += detector.doubts()
    return result


class _Again:
    """A second look at rows that are evenly spaced, and at those whose query others have, too."""

    def __init__(
        self, options: Options, rows: int, repeated: set[int], near: HeldOutCopies | None
    ) -> None:
        self.sample: list[tuple[int, Example]] = []
        self.pictures = PictureDoubts()
        self._repeated, self._conflicts = repeated, Conflicts()
        self._step = max(1, math.ceil(rows / options.sample))
        self._sampled: list[Detector] = [CopiesInRows(), self.pictures]
        if options.tokens is not None:
            self._sampled.append(options.tokens)

        self._leak_step = max(1, math.ceil(rows / max(options.sample, COMPARED_ROWS)))
        self._near = near

    def look(self, path: Path, progress: Progress) -> None:
        """Read the lines, and decode those that are looked at; bad rows are passed over."""
        left = MAX_SAMPLE_BYTES
        for number, (line, content) in enumerate(readable_lines(path)):
            sampled = number % self._step == 0 and left > 0
            compared = self._near is not None and number % self._leak_step == 0
            if not (sampled or compared or line in self._repeated):
                continue
            try:
                example = parse_row(content, path, line)
            except DataError:
                continue

            if line in self._repeated:
                self._conflicts.see(example, line)
            if compared and self._near is not None:
                self._near.see(example, line)
            if sampled:
                left -= len(content)
                for detector in self._sampled:
                    detector.see(example, line)
                self.sample.append((line, example))
                progress(1)

    def doubts(self) -> Iterator[Doubt]:
        """All that is doubtful about these rows."""
        for detector in (*self._sampled, self._conflicts):
            yield from detector.doubts()
        if self._near is not None:
            yield from self._near.doubts()


def readable_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, up to where it cannot be read: that is a fault that was found before."""
    with suppress(DataError):
        yield from read_lines(path)
