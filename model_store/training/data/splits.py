"""Training rows and held-out rows: a split by query, and a search for leaks between the two.

Does not depend on models. Invariant: the split of a query depends on its content and the seed
alone, so a query is in exactly one of them, in whatever file and order it comes; after `split`,
`leaks` finds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from model_store.errors import DataError
from model_store.output_files import check_outputs, output_file
from model_store.training.data.identity import content_key, normalize_text
from model_store.training.data.image_files import ImageMode
from model_store.training.data.row_files import example_line
from model_store.training.data.rows import Example, Negative, Side, read_examples

_SHOWN = 20

Role = Literal["queries", "positives", "negatives"]


@dataclass(slots=True)
class Leaks:
    """Counts of held-out content among training rows, by `identity.content_key`.

    `sentences` are on the first `_SHOWN` of them.
    """

    queries: int = 0
    positives: int = 0
    negatives: int = 0
    sentences: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The number of leaks of every kind."""
        return self.queries + self.positives + self.negatives

    def add(self, kind: Role, location: str) -> None:
        """Count a leak of a row."""
        match kind:
            case "queries":
                self.queries += 1
            case "positives":
                self.positives += 1
            case "negatives":
                self.negatives += 1
        if len(self.sentences) < _SHOWN:
            self.sentences.append(
                f"{location}: of its {kind}, one is a held-out query or positive."
            )


@dataclass(slots=True)
class SplitCounts:
    """Counts of a split: rows written to each file, rows left out because they would leak, and
    negatives removed from rows for the same reason."""

    train: int = 0
    dev: int = 0
    left_out: int = 0
    negatives_taken_out: int = 0


def is_held_out(example: Example, share: float, seed: int) -> bool:
    """True if the example's query is held out, as a `share` of all distinct queries is."""
    salt = seed.to_bytes(8, "big", signed=True)
    digest = hashlib.sha256(salt + content_key(example.query)).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def held_out_keys(examples: Iterable[Example]) -> set[bytes]:
    """The keys of held-out examples' queries and positives, which no training row may show."""
    keys: set[bytes] = set()
    for example in examples:
        keys.add(content_key(example.query))
        keys.update(map(content_key, example.positives))
    return keys


def leaks(train: Path, dev: Path) -> Leaks:
    """The queries and positives of `dev` that `train` shows, in whatever role.

    Memory grows with `dev` alone.
    """
    held_out = held_out_keys(read_examples(dev))
    found = Leaks()
    for example in read_examples(train):
        for kind in _leaks_of(example, held_out):
            found.add(kind, example.location)
    return found


def same_rows(train: Path, dev: Path) -> Iterator[str]:
    """A sentence for each row of `train` whose query and one of whose positives are those of a row
    of `dev`.

    Memory grows with `dev` alone. Images of `train` are read only where their size is that of a
    held-out query's image.
    """
    held_out: dict[tuple[bytes, bytes], str] = {}
    cheap_keys: set[tuple[str, int | None]] = set()
    for example in read_examples(dev):
        cheap_keys.add(_cheap_key(example.query))
        query = content_key(example.query)
        for side in example.positives:
            held_out[query, content_key(side)] = example.location

    for example in read_examples(train):
        if _cheap_key(example.query) not in cheap_keys:
            continue

        query = content_key(example.query)
        for side in example.positives:
            location = held_out.get((query, content_key(side)))
            if location is not None:
                yield (
                    f"{example.location}: the row is held out, too: {location} has the same query"
                    " and positive."
                )
                break


def _cheap_key(side: Side) -> tuple[str, int | None]:
    """The normalised text, and the size of the image's file, without reading the file.

    Raises `DataError` where there is no such file.
    """
    try:
        size = None if side.image is None else side.image.stat().st_size
    except OSError as error:
        raise DataError(f"{side.image}: the image cannot be read ({error.strerror}).") from None
    return normalize_text(side.text or ""), size


def _leaks_of(example: Example, held_out: set[bytes]) -> Iterator[Role]:
    """The role of each side of an example that is held out."""
    if content_key(example.query) in held_out:
        yield "queries"
    for side in example.positives:
        if content_key(side) in held_out:
            yield "positives"
    for negative in example.negatives:
        if content_key(negative.side) in held_out:
            yield "negatives"


def split(
    source: Path,
    train: Path,
    dev: Path,
    *,
    share: float,
    seed: int = 0,
    image_mode: ImageMode = "reference",
) -> SplitCounts:
    """Write `source`'s rows to `train` and `dev` by their queries; both appear whole, `dev` last.

    A training row whose query or positive is held out is left out; a held-out negative is removed
    from its row. `image_mode` is for images outside the folders of `train` and `dev`. Raises
    `DataError`, also where one of the files would be empty.
    """
    check_outputs(train, dev, inputs=(source,))
    held_out = held_out_keys(
        example for example in read_examples(source) if is_held_out(example, share, seed)
    )

    counts = SplitCounts()
    with output_file(dev) as write_dev, output_file(train) as write_train:
        for example in read_examples(source):
            if is_held_out(example, share, seed):
                write_dev(example_line(example, dev.parent, image_mode))
                counts.dev += 1
                continue

            kept = _without_leaks(example, held_out)
            if kept is None:
                counts.left_out += 1
                continue
            write_train(example_line(kept, train.parent, image_mode))
            counts.train += 1
            counts.negatives_taken_out += len(example.negatives) - len(kept.negatives)

        if not counts.train or not counts.dev:
            raise DataError(_empty_file(source, counts, share))
    return counts


def _empty_file(source: Path, counts: SplitCounts, share: float) -> str:
    """The sentence for a file that would be empty, with the option that fills it."""
    rows, change = ("for training", "smaller") if counts.dev else ("held out", "larger")
    leaking = ""
    if counts.left_out:
        leaking = f", and {counts.left_out} would be left out, since they show a held-out side"
    return (
        f"{source}: with --share {share:g} no row would be {rows}{leaking}; a {change} --share"
        " gives it some."
    )


def _without_leaks(example: Example, held_out: set[bytes]) -> Example | None:
    """The example without held-out negatives; None where its query or a positive is held out."""
    kinds = set(_leaks_of(example, held_out))
    if "queries" in kinds or "positives" in kinds:
        return None
    if not kinds:
        return example

    kept: list[Negative] = []
    scores = example.teacher_scores
    kept_scores = list(scores[: len(example.positives)]) if scores else []
    for number, negative in enumerate(example.negatives, start=len(example.positives)):
        if content_key(negative.side) not in held_out:
            kept.append(negative)
            if scores:
                kept_scores.append(scores[number])

    return replace(
        example, negatives=tuple(kept), teacher_scores=tuple(kept_scores) if scores else None
    )
