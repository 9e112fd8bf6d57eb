"""What every converter does: documents to a corpus, relations to examples, pictures to where rows can name them.

Knows our own rows, no foreign layout. Invariant: an example names documents of its corpus only; both files appear whole, with a
report beside each, and a conversion that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from model_store.training.corpus import Corpus
from model_store.training.data import MAX_PATH_CHARS, MAX_SIDES, MAX_TEXT_CHARS, DataError, Example, Negative, Side, inside
from model_store.training.image_files import IMAGES, Keeping, bring
from model_store.training.parts import Parts
from model_store.training.writing import line_of, whole, write_json

ROWS_A_PART = 5_000

Item = TypeVar("Item")


class Skipped(Exception):
    """A source row that makes no row here; its text is the reason, for the report's counts."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A query, and the ids of the corpus's documents that are relevant and that are not; `place` is the source's `file:line`."""

    id: str
    instruction: str | None
    query: Side
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    place: str


@dataclass(slots=True)
class Converted:
    """What became of the source's rows: written, skipped for a reason, and changed in a way worth knowing."""

    written: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def convert(
    target: Path, described: dict[str, Any], items: Iterable[Item], make: Callable[[Item, Counter[str]], bytes]
) -> Converted:
    """One row of `target` for each item; `make` gives the line, counts what it changed, or raises `Skipped`.

    `described` tells this conversion from others: where `target` was made by it before, nothing is done. Raises `DataError`.
    """
    report = target.with_name(target.name + ".report.json")
    if (done := _report(report, described)) is not None and target.exists():
        return done
    parts = Parts(target.with_name(target.name + ".parts"), described)
    number = 0
    for part in _chunks(items):
        if parts.note(number) is None:
            _write_part(parts, number, part, make)
        else:
            for _ in part:
                pass
        number += 1
    total = Converted()
    for note in parts.notes(number):
        total.written += note["written"]
        total.counts.update(note["counts"])
    if not total.written:
        parts.remove()
        raise DataError(f"{target}: the source gives no row ({dict(total.counts) or 'it is empty'}).")
    parts.join(number, target)
    write_json(report, {"made_from": described, "written": total.written, "counts": total.counts})
    parts.remove()
    return total


def _write_part(parts: Parts, number: int, part: Iterator[Item], make: Callable[[Item, Counter[str]], bytes]) -> None:
    counts: Counter[str] = Counter()
    note: dict[str, Any] = {"written": 0, "counts": counts}

    def lines() -> Iterator[bytes]:
        for item in part:
            try:
                line = make(item, counts)
            except Skipped as reason:
                counts[f"skipped: {reason}"] += 1
                continue
            note["written"] += 1
            yield line

    parts.write(number, lines(), note)


def _chunks(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Runs of `ROWS_A_PART` items, none of them empty; each must be used up before the next is asked for."""
    left = iter(items)
    for first in left:
        yield chain([first], islice(left, ROWS_A_PART - 1))


def _report(path: Path, described: dict[str, Any]) -> Converted | None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["made_from"] == json.loads(json.dumps(described)):
            return Converted(report["written"], Counter(report["counts"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path}: it cannot be read; remove it to convert again.") from None
    raise DataError(f"{path}: {path.name} describes another conversion; give another name, or remove it.")


def example_line(relation: Relation, corpus: Corpus, folder: Path, counts: Counter[str]) -> bytes:
    """A relation as a row of a file in `folder`; raises `Skipped` without positives, `DataError` for an unknown document."""
    if not relation.positives:
        raise Skipped("no relevant document")
    positives = _documents(relation.positives, relation.place, corpus, counts)
    negatives = _documents(
        [name for name in relation.negatives if name not in relation.positives], relation.place, corpus, counts
    )
    example = Example(
        relation.id,
        relation.instruction,
        relation.query,
        tuple(positives),
        tuple(Negative(side, "hard") for side in negatives),
        relation.place,
    )
    return line_of(example, folder)


def _documents(names: Iterable[str], place: str, corpus: Corpus, counts: Counter[str]) -> list[Side]:
    wanted = list(dict.fromkeys(names))
    counts["documents left out of overlong lists"] += max(len(wanted) - MAX_SIDES, 0)
    found = []
    for name in wanted[:MAX_SIDES]:
        document = corpus.find(name)
        if document is None:
            raise DataError(f"{place}: the document {name!r} is not in {corpus.path.name}.")
        found.append(document.side)
    return found


def text_within(text: str | None, counts: Counter[str]) -> str | None:
    """A source's text as a side may have it: no NUL, cut where it is too long, None where nothing is left."""
    if text is None:
        return None
    text = text.replace("\0", "")
    if len(text) > MAX_TEXT_CHARS:
        counts["texts cut"] += 1
        text = text[:MAX_TEXT_CHARS]
    return text if text.strip() else None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a source's picture files go: rows lie in `folder`, pictures below `root`."""

    root: Path
    folder: Path
    keeping: Keeping

    def keep(self, name: str | None, place: str) -> Path | None:
        """The file that a row is to name for the source's `name`; raises `DataError`, which says `place`."""
        if not name:
            return None
        try:
            source = self.root / inside(name, "the image")
        except ValueError as error:
            raise DataError(f"{place}: {error}.") from None
        if self.keeping == "reference":
            return source
        kept = self.folder / IMAGES / name
        if len(str(kept)) > MAX_PATH_CHARS:
            raise DataError(f"{place}: the image's path is longer than {MAX_PATH_CHARS} characters.")
        try:
            bring(source, kept, self.keeping)
        except FileNotFoundError:
            raise DataError(f"{place}: the image {name!r} does not exist in {self.root}.") from None
        except OSError as error:
            raise DataError(f"{place}: the image {name!r} cannot be kept ({error.strerror}).") from None
        return kept


def keep_bytes(data: bytes, name: str, folder: Path) -> Path:
    """A picture's bytes as `folder/images/<two letters>/<name>`, written once."""
    path = folder / IMAGES / name[:2] / name
    if not path.exists():
        with whole(path) as write:
            write(data)
    return path
