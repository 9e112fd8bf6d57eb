"""The common part of every converter: documents to a corpus, relations to examples.

Knows our own rows, no foreign layout. Invariant: an example names documents of its corpus only;
both files appear whole, with a report beside each, and a conversion that was interrupted goes on
where it stopped. A row that cannot be used is skipped and counted, and ends the conversion only
beyond a bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from model_store.training.data.converters.outcomes import BadRow, Converted, Skipped
from model_store.training.data.corpus import Corpus
from model_store.training.data.identity import key_of
from model_store.training.data.resumable import Note, Parts
from model_store.training.data.row_files import line_of, output_file, write_json
from model_store.training.data.rows import (
    MAX_SIDES,
    DataError,
    Example,
    Negative,
    Side,
    check_names,
)

ROWS_A_PART = 5_000

CORPUS = ".corpus.jsonl"
"""How the name of a corpus ends that belongs to rows."""

Item = TypeVar("Item")
ShowProgress = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Opens a display of progress for a unit, such as "documents"; the display takes how many more were
done."""


@contextmanager
def no_progress(unit: str) -> Iterator[Callable[[int], None]]:
    """Progress that is not shown."""
    yield lambda count: None


@dataclass(frozen=True, slots=True)
class Relation:
    """A query, and the ids of the corpus's documents that are relevant and that are not; `place` is
    the source's `file:line`."""

    id: str
    instruction: str | None
    query: Side
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    place: str


def convert(
    target: Path,
    described: dict[str, Any],
    items: Iterable[Item],
    make: Callable[[Item, Converted], bytes],
    *,
    max_bad: int = 0,
    before: Converted | None = None,
    show_progress: ShowProgress = no_progress,
) -> Converted:
    """One row of `target` for each item; `show_progress` shows how many were read.

    `make` gives the line and counts what it changed, or raises `Skipped` or `BadRow`. `described`
    tells this conversion from others: where `target` was made by it before, nothing is done.
    `before` is what was found wrong already, by the same bound. Raises `DataError`, also beyond
    `max_bad`.
    """
    report = target.with_name(target.name + ".report.json")
    if (done := _report(report, described)) is not None and target.exists():
        done.within(max_bad)
        return done
    parts = Parts(target.with_name(target.name + ".parts"), described)
    total = before or Converted()
    number = 0
    with show_progress("documents" if target.name.endswith(CORPUS) else "examples") as advance:
        for part in _chunks(items):
            note = parts.note(number)
            if note is None:
                note = _write_part(parts, number, part, make, max_bad, total.bad)
            else:
                for _ in part:
                    pass
            total.add(note)
            total.within(max_bad)
            number += 1
            advance(note["read"])
    if not total.written:
        parts.remove()
        first = f"; {total.bad_rows[0]}" if total.bad_rows else ""
        counts = ", ".join(f"{reason}: {count}" for reason, count in total.counts.items() if count)
        raise DataError(
            f"{target}: the source gives no row ({counts or f'{total.bad} bad rows'}){first}"
        )
    parts.join(number, target)
    write_json(report, {"made_from": described, **total.note()})
    parts.remove()
    return total


def _write_part(
    parts: Parts,
    number: int,
    part: Iterator[Item],
    make: Callable[[Item, Converted], bytes],
    max_bad: int,
    before: int,
) -> Note:
    done = Converted()
    with output_file(parts.path(number)) as write:
        for item in part:
            done.read += 1
            try:
                write(make(item, done))
                done.written += 1
            except Skipped as skipped:
                done.counts[f"skipped: {skipped}"] += 1
                if skipped.document is not None:
                    done.left_out.add(skipped.document)
            except BadRow as bad:
                done.wrong(str(bad))
                if bad.document is not None:
                    done.left_out.add(bad.document)
            done.within(max_bad, before)
    note = done.note()
    parts.finish(number, note)
    return note


def _chunks(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Runs of `ROWS_A_PART` items, none of them empty; each must be used up before the next is
    asked for."""
    left = iter(items)
    for first in left:
        yield chain([first], islice(left, ROWS_A_PART - 1))


def _report(path: Path, described: dict[str, Any]) -> Converted | None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["made_from"] == json.loads(json.dumps(described)):
            done = Converted()
            done.add(report)
            return done
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: it cannot be read; remove it to convert again.") from None
    raise DataError(
        f"{path}: {path.name} describes another conversion; give another name, or remove it."
    )


class Documents:
    """The corpus that a conversion wrote, for the examples that name its documents."""

    def __init__(self, path: Path, converted: Converted, *, filtered: bool = False) -> None:
        """`filtered`: documents of the source may be missing on purpose, so that a missing one is
        not bad."""
        self._corpus, self._left_out, self._filtered = Corpus(path), converted.left_out, filtered
        self.name = path.name

    def find(self, identity: str) -> Side | None:
        """The document of an id, where the corpus has it."""
        found = self._corpus.find(identity)
        return None if found is None else found.side

    def is_known(self, identity: str) -> bool:
        """Whether a document that the corpus lacks may have been in the source."""
        return self._filtered or identity in self._left_out


def example_line(relation: Relation, documents: Documents, folder: Path, done: Converted) -> bytes:
    """A relation as a row of a file in `folder`.

    Raises `Skipped` where no positive is there, and `BadRow` where that is because the source names
    documents that it has not; where others are left, such a row is counted as bad and written.
    """
    if not relation.positives:
        raise Skipped("no relevant document")
    positives, unknown = _found(relation.positives, documents, done)
    if not positives:
        if unknown:
            raise BadRow(_unknown(unknown[0], relation, documents))
        raise Skipped("no relevant document is in the corpus")

    named = set(relation.positives)
    negatives, more = _found(
        [name for name in relation.negatives if name not in named], documents, done
    )
    if unknown or more:
        done.wrong(_unknown([*unknown, *more][0], relation, documents))
    known = {key_of(side) for side in positives}
    different = [side for side in negatives if key_of(side) not in known]
    done.counts["negatives left out, which equal a relevant document"] += len(negatives) - len(
        different
    )
    example = Example(
        relation.id,
        relation.instruction,
        relation.query,
        tuple(positives),
        tuple(Negative(side, "hard") for side in different),
        relation.place,
    )
    return checked_line(example, folder)


def checked_line(example: Example, folder: Path) -> bytes:
    """An example as a row of a file in `folder`; raises `BadRow` where its id or instruction is too
    long."""
    try:
        check_names(example)
    except ValueError as error:
        raise BadRow(f"{example.place}: {error}.") from None
    return line_of(example, folder)


def _found(
    names: Iterable[str], documents: Documents, done: Converted
) -> tuple[list[Side], list[str]]:
    """At most `MAX_SIDES` documents that the corpus has, and ids that the source has not."""
    found: list[Side] = []
    unknown: list[str] = []
    wanted = list(dict.fromkeys(names))
    for number, name in enumerate(wanted):
        if len(found) == MAX_SIDES:
            done.counts["documents left out of overlong lists"] += len(wanted) - number
            break
        side = documents.find(name)
        if side is not None:
            found.append(side)
        elif documents.is_known(name):
            done.counts["documents named, which were left out"] += 1
        else:
            unknown.append(name)
    return found, unknown


def _unknown(name: str, relation: Relation, documents: Documents) -> str:
    return f"{relation.place}: the document {name[:100]!r} is not in {documents.name}."


def corpus_of(target: Path) -> Path:
    """Where the corpus goes that belongs to the rows at `target`."""
    return target.with_name(f"{target.stem}{CORPUS}")
