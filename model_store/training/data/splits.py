"""Data for training and data held out: split by query, and what the one gives away of the other.

Knows contents, no model. Invariant: the part of a query depends on its content and the seed alone,
so a query is in one part only, in whatever file and order it comes; after `split`, `leaks` finds
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from model_store.training.data.identity import key_of, normal
from model_store.training.data.image_files import ImageMode
from model_store.training.data.row_files import check_outputs, line_of, output_file
from model_store.training.data.rows import DataError, Example, Side, read_examples

SHOWN = 20


@dataclass(slots=True)
class Leaks:
    """Held-out content among the training data, sides compared whole (`contents.key_of`); `places`
    are the first `SHOWN`."""

    queries: int = 0
    positives: int = 0
    negatives: int = 0
    places: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.queries + self.positives + self.negatives

    def add(self, kind: str, place: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.places) < SHOWN:
            self.places.append(f"{place}: of its {kind}, one is a held-out query or positive.")


@dataclass(slots=True)
class Split:
    """How a file was split: rows written to each part, rows left out because they would leak,
    negatives taken out for that."""

    train: int = 0
    dev: int = 0
    left_out: int = 0
    negatives_taken_out: int = 0


def is_held_out(example: Example, share: float, seed: int) -> bool:
    """Whether the example's query belongs to the held-out part, of which `share` is the part of all
    distinct queries."""
    digest = hashlib.sha256(seed.to_bytes(8, "big", signed=True) + key_of(example.query)).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def held_out(examples: Iterable[Example]) -> set[bytes]:
    """The keys of what must not be seen in training: the queries and positives of held-out
    examples."""
    return {key_of(side) for example in examples for side in (example.query, *example.positives)}


def leaks(train: Path, dev: Path) -> Leaks:
    """Where `train` shows a query or a positive of `dev`, in whatever role. Memory grows with `dev`
    alone."""
    secret = held_out(read_examples(dev))
    found = Leaks()
    for example in read_examples(train):
        for kind in _kinds(example, secret):
            found.add(kind, example.place)
    return found


def same_rows(train: Path, dev: Path) -> Iterator[str]:
    """A sentence for each row of `train` whose query and one of whose positives are together in a
    row of `dev`.

    Memory grows with `dev` alone; of `train`, only images of the size of a held-out query's are
    read.
    """
    held: dict[tuple[bytes, bytes], str] = {}
    looks: set[tuple[str, int | None]] = set()
    for example in read_examples(dev):
        looks.add(_look(example.query))
        query = key_of(example.query)
        held |= {(query, key_of(side)): example.place for side in example.positives}

    for example in read_examples(train):
        if _look(example.query) not in looks:
            continue
        query = key_of(example.query)
        for side in example.positives:
            if (place := held.get((query, key_of(side)))) is not None:
                yield (
                    f"{example.place}: the row is held out, too: {place} has the same query and"
                    " positive."
                )
                break


def _look(side: Side) -> tuple[str, int | None]:
    """What is cheap to compare: the text, and the size of the image's file. Raises `DataError`
    where there is no such file."""
    try:
        size = None if side.image is None else side.image.stat().st_size
    except OSError as error:
        raise DataError(f"{side.image}: the image cannot be read ({error.strerror}).") from None
    return normal(side.text or ""), size


def _kinds(example: Example, secret: set[bytes]) -> Iterator[str]:
    if key_of(example.query) in secret:
        yield "queries"
    yield from ("positives" for side in example.positives if key_of(side) in secret)
    yield from ("negatives" for negative in example.negatives if key_of(negative.side) in secret)


def split(
    source: Path,
    train: Path,
    dev: Path,
    *,
    share: float,
    seed: int = 0,
    image_mode: ImageMode = "reference",
) -> Split:
    """Write `source`'s rows to `train` and `dev` by their queries; both appear whole, `dev` last.

    A training row whose query or positive is held out is left out; of a row with such a negative,
    the negative is. `image_mode` is of images outside the folders of `train` and `dev`. Raises
    `DataError`, also where a part would be empty.
    """
    check_outputs(train, dev, inputs=(source,))
    secret = held_out(
        example for example in read_examples(source) if is_held_out(example, share, seed)
    )
    done = Split()
    with output_file(dev) as to_dev, output_file(train) as to_train:
        for example in read_examples(source):
            if is_held_out(example, share, seed):
                to_dev(line_of(example, dev.parent, image_mode))
                done.dev += 1
            elif (kept := _without(example, secret)) is None:
                done.left_out += 1
            else:
                to_train(line_of(kept, train.parent, image_mode))
                done.train += 1
                done.negatives_taken_out += len(example.negatives) - len(kept.negatives)
        if not done.train or not done.dev:
            raise DataError(_empty_part(source, done, share))
    return done


def _empty_part(source: Path, done: Split, share: float) -> str:
    """Which part would be empty, and which option fills it."""
    part, change = ("held out", "larger") if not done.dev else ("for training", "smaller")
    also = (
        f", and {done.left_out} would be left out, since they show a held-out side"
        if done.left_out
        else ""
    )
    return (
        f"{source}: with --share {share:g} no row would be {part}{also}; a {change} --share gives"
        " it some."
    )


def _without(example: Example, secret: set[bytes]) -> Example | None:
    """The example without held-out negatives; None where its query or a positive is held out."""
    kinds = set(_kinds(example, secret))
    if kinds & {"queries", "positives"}:
        return None
    if not kinds:
        return example
    return replace(
        example, negatives=tuple(n for n in example.negatives if key_of(n.side) not in secret)
    )
