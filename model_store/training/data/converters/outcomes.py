"""Outcomes of a source's rows: written, skipped or bad, with counts and a bound on bad rows.

Does not depend on layouts or files. Invariant: every row is counted once as written, skipped or
bad; a row that is written without a document that it names counts as bad too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from model_store.errors import DataError
from model_store.parts import Note
from model_store.training.data.rows import MAX_TEXT_CHARS

_SHOWN = 20
"""Bad rows whose sentences are kept; further ones are counted only."""
MAX_LEFT_OUT = 1_000_000
"""Ids of documents that the source has and the corpus lacks: about 100 MB."""


class Skipped(Exception):
    """A source row that is left out on purpose; its text is the reason, for the report's counts.

    `document` is the id of the document that the corpus therefore lacks.
    """

    def __init__(self, reason: str, document: str | None = None) -> None:
        super().__init__(reason)
        self.document = document


class BadRow(DataError):
    """A source row that cannot be used; its text is one sentence, which begins with file and line.

    `document` is as in `Skipped`.
    """

    document: str | None = None


@contextmanager
def row_of_document(name: str) -> Iterator[None]:
    """Name the document that the corpus lacks in a `BadRow` of the block."""
    try:
        yield
    except BadRow as bad:
        bad.document = name
        raise


@dataclass(slots=True)
class Outcomes:
    """Counts of the source's rows: read, written, skipped or changed by reason, and bad.

    `bad_rows` are sentences on the first `_SHOWN` bad rows, and `last` on the last one. `left_out`
    are the ids of documents that the corpus lacks.
    """

    written: int = 0
    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    bad_rows: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    last: str = ""

    def add_bad(self, sentence: str) -> None:
        """Count a bad row."""
        self.bad += 1
        self.last = sentence
        if len(self.bad_rows) < _SHOWN:
            self.bad_rows.append(sentence)

    def check_bound(self, max_bad: int, before: int = 0) -> None:
        """Raise `DataError` where more than `max_bad` rows are bad, with the ones `before`."""
        if before + self.bad > max_bad:
            last = self.last or self.bad_rows[-1]
            raise DataError(f"{last} More rows are bad than --max-bad {max_bad} allows.")

    def add(self, note: Note) -> None:
        """Add the counts of a part, or of a finished conversion."""
        self.written += note["written"]
        self.read += note["read"]
        self.counts.update(note["counts"])
        self.bad += note["bad"]
        self.bad_rows.extend(note["bad_rows"][: _SHOWN - len(self.bad_rows)])
        self.left_out.update(note["left_out"])
        if len(self.left_out) > MAX_LEFT_OUT:
            raise DataError(f"More than {MAX_LEFT_OUT:,} documents of the source are empty or bad.")

    def note(self) -> Note:
        """The counts as JSON."""
        return {
            "written": self.written,
            "read": self.read,
            "counts": self.counts,
            "bad": self.bad,
            "bad_rows": self.bad_rows,
            "left_out": sorted(self.left_out),
        }


def clean_text(text: str | None, outcomes: Outcomes) -> str | None:
    """A source's text as a side may have it: without NUL, cut to the bound, None where it is
    blank."""
    if text is None:
        return None

    text = text.replace("\0", "")
    if len(text) > MAX_TEXT_CHARS:
        outcomes.counts["texts cut"] += 1
        text = text[:MAX_TEXT_CHARS]
    return text if text.strip() else None
