"""The fate of a source's rows: written, skipped, or bad, with counts and a bound.

Knows no layout and no file. Invariant: every row is counted once as written, skipped or bad; a row
that is written without a document that it names is counted as bad as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from model_store.training.data.resumable import Note
from model_store.training.data.rows import MAX_TEXT_CHARS, DataError

SHOWN = 20
"""Bad rows whose sentences are kept; the others are counted."""
MAX_LEFT_OUT = 1_000_000
"""Documents that a source has and its corpus has not, whose ids are kept: about 100 MB."""


class Skipped(Exception):
    """A source row that makes no row here, as expected; its text is the reason, for the report's
    counts.

    `document` is the id of the document that the corpus therefore lacks.
    """

    def __init__(self, reason: str, document: str | None = None) -> None:
        super().__init__(reason)
        self.document = document


class BadRow(DataError):
    """A source row that cannot be used; its text is one sentence that begins with file and line.

    `document` is as in `Skipped`.
    """

    document: str | None = None


@contextmanager
def of_document(name: str) -> Iterator[None]:
    """Note the document that the corpus lacks where its row is bad."""
    try:
        yield
    except BadRow as bad:
        bad.document = name
        raise


@dataclass(slots=True)
class Converted:
    """What became of the source's rows that were read: written, skipped or changed for a reason,
    and bad.

    `bad_rows` are sentences on the first `SHOWN` of `bad`, and `last` on the last that was found
    here; `left_out` are ids of documents.
    """

    written: int = 0
    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    bad_rows: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    last: str = ""

    def wrong(self, sentence: str) -> None:
        """Count a bad row."""
        self.bad += 1
        self.last = sentence
        if len(self.bad_rows) < SHOWN:
            self.bad_rows.append(sentence)

    def within(self, max_bad: int, before: int = 0) -> None:
        """Raise `DataError` where more rows are bad, with those `before`, than may be."""
        if before + self.bad > max_bad:
            last = self.last or self.bad_rows[-1]
            raise DataError(f"{last} More rows are bad than --max-bad {max_bad} allows.")

    def add(self, note: Note) -> None:
        """Add what is said of a part, or of a finished conversion."""
        self.written += note["written"]
        self.read += note["read"]
        self.counts.update(note["counts"])
        self.bad += note["bad"]
        self.bad_rows.extend(note["bad_rows"][: SHOWN - len(self.bad_rows)])
        self.left_out.update(note["left_out"])
        if len(self.left_out) > MAX_LEFT_OUT:
            raise DataError(f"More than {MAX_LEFT_OUT:,} documents of the source are empty or bad.")

    def note(self) -> Note:
        """The same as JSON."""
        return {
            "written": self.written,
            "read": self.read,
            "counts": self.counts,
            "bad": self.bad,
            "bad_rows": self.bad_rows,
            "left_out": sorted(self.left_out),
        }


def text_within(text: str | None, done: Converted) -> str | None:
    """A source's text as a side may have it: no NUL, cut where it is too long, None where nothing
    is left."""
    if text is None:
        return None
    text = text.replace("\0", "")
    if len(text) > MAX_TEXT_CHARS:
        done.counts["texts cut"] += 1
        text = text[:MAX_TEXT_CHARS]
    return text if text.strip() else None
