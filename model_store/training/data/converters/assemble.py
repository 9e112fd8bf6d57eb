"""The common part of all converters: documents become a corpus, and relations become examples.

Does not depend on layouts. Invariant: an example names only documents of its corpus. Both files
appear whole, with a report beside each, and an interrupted conversion continues where it stopped. A
row that cannot be used is skipped and counted; the conversion fails only beyond a bound on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from model_store.errors import DataError
from model_store.output_files import output_file, write_json
from model_store.parts import Note, Parts
from model_store.training.data.converters.outcomes import BadRow, Outcomes, Skipped
from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import content_key
from model_store.training.data.row_files import example_line
from model_store.training.data.rows import MAX_SIDES, Example, Negative, Side, check_names

ROWS_A_PART = 5_000

CORPUS = ".corpus.jsonl"
"""The end of the name of a corpus that belongs to rows."""

Item = TypeVar("Item")
MakeRow = Callable[[Item, Outcomes], bytes]
"""Makes the row of an item and counts what it changed, or raises `Skipped` or `BadRow`."""
ShowProgress = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Opens a display of progress for a unit, such as "documents"; the display takes the number of
items since the last call."""


@contextmanager
def without_progress(unit: str) -> Iterator[Callable[[int], None]]:
    """Progress that is not shown."""
    yield lambda count: None


@dataclass(frozen=True, slots=True)
class Relation:
    """A query, and the ids of its relevant and irrelevant documents in the corpus.

    `location` is the source's `file:line`.
    """

    id: str
    instruction: str | None
    query: Side
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    location: str


def convert(
    target: Path,
    described: dict[str, Any],
    items: Iterable[Item],
    make: MakeRow[Item],
    *,
    max_bad: int = 0,
    before: Outcomes | None = None,
    show_progress: ShowProgress = without_progress,
    rows_a_part: int = ROWS_A_PART,
) -> Outcomes:
    """Write one row of `target` for each item.

    `described` identifies the conversion: where it wrote `target` already, nothing is done.
    `before` has the bad rows of other files that count towards `max_bad` too. Raises `DataError`,
    also where more than `max_bad` rows are bad.
    """
    report = target.with_name(target.name + ".report.json")
    finished = _finished(report, described)
    if finished is not None and target.exists():
        finished.check_bound(max_bad)
        return finished

    parts = Parts(target.with_name(target.name + ".parts"), described)
    total = before or Outcomes()
    number = 0
    with show_progress("documents" if target.name.endswith(CORPUS) else "examples") as advance:
        for part in _chunks(items, rows_a_part):
            note = parts.note(number)
            if note is None:
                note = _write_part(parts, number, part, make, max_bad, total.bad)
            else:
                for _ in part:  # its rows were written before
                    pass
            total.add(note)
            total.check_bound(max_bad)
            number += 1
            advance(note["read"])

    if not total.written:
        parts.remove()
        raise DataError(f"{target}: the source gives no row {_reasons(total)}")
    parts.join(number, target)
    write_json(report, {"made_from": described, **total.note()})
    parts.remove()
    return total


def _write_part(
    parts: Parts,
    number: int,
    part: Iterator[Item],
    make: MakeRow[Item],
    max_bad: int,
    before: int,
) -> Note:
    outcomes = Outcomes()
    with output_file(parts.path(number)) as write:
        for item in part:
            outcomes.read += 1
            try:
                write(make(item, outcomes))
                outcomes.written += 1
            except Skipped as skipped:
                outcomes.counts[f"skipped: {skipped}"] += 1
                if skipped.document is not None:
                    outcomes.left_out.add(skipped.document)
            except BadRow as bad:
                outcomes.add_bad(str(bad))
                if bad.document is not None:
                    outcomes.left_out.add(bad.document)
            outcomes.check_bound(max_bad, before)

    note = outcomes.note()
    parts.finish(number, note)
    return note


def _chunks(items: Iterable[Item], size: int) -> Iterator[Iterator[Item]]:
    """Runs of at most `size` items, none empty; each must be exhausted before the next."""
    iterator = iter(items)
    for first in iterator:
        yield chain([first], islice(iterator, size - 1))


def _finished(report: Path, described: dict[str, Any]) -> Outcomes | None:
    """The outcomes of this conversion from its report; None where there is none."""
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        if found["made_from"] == json.loads(json.dumps(described)):
            outcomes = Outcomes()
            outcomes.add(found)
            return outcomes
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{report}: it cannot be read; remove it to convert again.") from None

    raise DataError(
        f"{report}: {report.name} describes another conversion; give another name, or remove it."
    )


def _reasons(total: Outcomes) -> str:
    """The reasons why no row was written, as the end of a sentence."""
    counts = ", ".join(f"{reason}: {count}" for reason, count in total.counts.items() if count)
    first = f"; {total.bad_rows[0]}" if total.bad_rows else ""
    return f"({counts or f'{total.bad} bad rows'}){first}"


class CorpusDocuments:
    """The corpus that a conversion wrote, for the examples that name its documents."""

    def __init__(self, path: Path, converted: Outcomes, *, filtered: bool = False) -> None:
        """A `filtered` corpus lacks documents of the source on purpose, so that a missing one is no
        bad row."""
        self._corpus, self._left_out, self._filtered = Corpus(path), converted.left_out, filtered
        self.name = path.name

    def find(self, identity: str) -> Side | None:
        """The document of an id; None where the corpus has none."""
        found = self._corpus.find(identity)
        return None if found is None else found.side

    def is_known(self, identity: str) -> bool:
        """True if a document that the corpus lacks may have been in the source."""
        return self._filtered or identity in self._left_out


def relation_line(
    relation: Relation, documents: CorpusDocuments, folder: Path, outcomes: Outcomes
) -> bytes:
    """A relation as a row of a file in `folder`.

    Raises `Skipped` where the corpus has no positive of it, and `BadRow` where that is because the
    source names documents that it does not have. A row with some positives left is written, and
    counts as bad too.
    """
    if not relation.positives:
        raise Skipped("no relevant document")
    positives, unknown = _find_documents(relation.positives, documents, outcomes)
    if not positives:
        if unknown:
            raise BadRow(_unknown_document(unknown[0], relation, documents))
        raise Skipped("no relevant document is in the corpus")

    relevant = set(relation.positives)
    irrelevant = [name for name in relation.negatives if name not in relevant]
    negatives, unknown_negatives = _find_documents(irrelevant, documents, outcomes)
    unknown += unknown_negatives
    if unknown:
        outcomes.add_bad(_unknown_document(unknown[0], relation, documents))

    example = Example(
        relation.id,
        relation.instruction,
        relation.query,
        tuple(positives),
        hard_negatives(negatives, positives, outcomes),
        relation.location,
    )
    return valid_example_line(example, folder)


def hard_negatives(
    sides: Sequence[Side], positives: Iterable[Side], outcomes: Outcomes
) -> tuple[Negative, ...]:
    """Sides that equal no positive, as hard negatives: no source states how it found them."""
    relevant = {content_key(side) for side in positives}
    negatives = [Negative(side, "hard") for side in sides if content_key(side) not in relevant]
    left_out = len(sides) - len(negatives)
    outcomes.counts["negatives left out, which equal a relevant document"] += left_out
    return tuple(negatives)


def valid_example_line(example: Example, folder: Path) -> bytes:
    """An example as a row of a file in `folder`; raises `BadRow` where its id or instruction is too
    long."""
    try:
        check_names(example)
    except ValueError as error:
        raise BadRow(f"{example.location}: {error}.") from None
    return example_line(example, folder)


def _find_documents(
    names: Iterable[str], documents: CorpusDocuments, outcomes: Outcomes
) -> tuple[list[Side], list[str]]:
    """At most `MAX_SIDES` documents that the corpus has, and the ids that the source lacks."""
    found: list[Side] = []
    unknown: list[str] = []
    distinct = list(dict.fromkeys(names))
    for number, name in enumerate(distinct):
        if len(found) == MAX_SIDES:
            outcomes.counts["documents left out of overlong lists"] += len(distinct) - number
            break

        side = documents.find(name)
        if side is not None:
            found.append(side)
        elif documents.is_known(name):
            outcomes.counts["documents named, which were left out"] += 1
        else:
            unknown.append(name)
    return found, unknown


def _unknown_document(name: str, relation: Relation, documents: CorpusDocuments) -> str:
    return f"{relation.location}: the document {name[:100]!r} is not in {documents.name}."


def corpus_path_of(target: Path) -> Path:
    """The path of the corpus that belongs to the rows at `target`."""
    return target.with_name(f"{target.stem}{CORPUS}")
