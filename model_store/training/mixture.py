"""The paper's training mixture (table 7), drawn from converted files.

Knows tasks, data sets and numbers, no layout. The paper gives a number for each task, not for each data set: a task's number is
shared evenly, and what a small data set cannot give, the others of its task do. Invariant: the same files and seed give the same
rows in the same order, each row at most once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from random import Random

from model_store.training.data import MAX_ID_CHARS, DataError, Example
from model_store.training.instructions import TRAINING
from model_store.training.lines import Examples
from model_store.training.writing import write_examples

Part = tuple[str, str]
"""A task and a data set, as `("T-IT", "WebQA")`."""


@dataclass(frozen=True, slots=True)
class Task:
    """One row of table 7."""

    kind: str
    task: str
    datasets: tuple[str, ...]
    number: int


TABLE_7 = (
    Task("single-modal", "T-T", ("WebQA", "MS MARCO"), 30_000),
    Task("single-modal", "I-I", ("Nights", "ImageNet-1K"), 30_000),
    Task("cross-modal", "T-I", ("Fashion200k", "VisualNews"), 29_958),
    Task("cross-modal", "T-VD", ("ViDoRe",), 30_000),
    Task("cross-modal", "I-T", ("Fashion200k", "MSCOCO", "VisualNews"), 30_882),
    Task("fused-modal", "T-IT", ("EDIS", "WebQA"), 30_000),
    Task("fused-modal", "IT-T", ("LLaVA", "OVEN", "ReMuQ"), 30_382),
    Task("fused-modal", "IT-I", ("CIRR", "FashionIQ"), 29_528),
    Task("fused-modal", "IT-IT", ("E-VQA", "OVEN"), 30_000),
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a mixture has of each part, and by how much each task falls short of its number."""

    rows: dict[Part, int]
    short: dict[str, int]


def shares(number: int, available: Sequence[int]) -> list[int]:
    """`number` shared evenly, none more than is available; what does not divide goes to the first. Sums to what there is."""
    taken = [0] * len(available)
    left = number
    for after, place in enumerate(sorted(range(len(available)), key=available.__getitem__)):
        taken[place] = min(available[place], -(-left // (len(available) - after)))
        left -= taken[place]
    return taken


def source_of(written: str) -> tuple[Part, Path]:
    """`TASK/DATASET=FILE`, as people write it; raises `DataError`."""
    name, equals, path = written.partition("=")
    task, slash, dataset = name.partition("/")
    if not (equals and slash and path):
        raise DataError(f"A source is TASK/DATASET=FILE, not {written!r}.")
    return (task, dataset), Path(path)


def mix(sources: Mapping[Part, Path], target: Path, *, scale: float = 1.0, seed: int = 0, partial: bool = False) -> Drawn:
    """Write the mixture of table 7, each task's number times `scale`, with table 10's instructions.

    Rows are drawn and ordered by `seed`; memory is one number a row. `partial` allows that data sets are missing. Raises
    `DataError`, before anything is written where a source is unknown or missing.
    """
    _known(sources, partial)
    files = {part: Examples(path) for part, path in sources.items()}
    counts: dict[Part, int] = {}
    short: dict[str, int] = {}
    for task in TABLE_7:
        parts = [(task.task, dataset) for dataset in task.datasets if (task.task, dataset) in files]
        wanted = round(task.number * scale)
        given = shares(wanted, [len(files[part]) for part in parts])
        counts.update(zip(parts, given, strict=True))
        if sum(given) < wanted:
            short[task.task] = wanted - sum(given)
    write_examples(target, _drawn(files, counts, seed))
    return Drawn(counts, short)


def _known(sources: Mapping[Part, Path], partial: bool) -> None:
    wanted = {f"{task}/{dataset}": (task, dataset) for task, dataset in TRAINING}
    for task, dataset in sources:
        if (task, dataset) not in TRAINING:
            near = get_close_matches(f"{task}/{dataset}", wanted, n=1)
            raise DataError(f"{task}/{dataset} is not in the mixture{f': is it {near[0]}?' if near else '.'}")
    missing = [name for name, part in wanted.items() if part not in sources]
    if missing and not partial:
        raise DataError(f"The mixture lacks {', '.join(missing)}.")


def _drawn(files: Mapping[Part, Examples], counts: Mapping[Part, int], seed: int) -> Iterator[Example]:
    order = [
        (part, place)
        for part in sorted(counts)
        for place in Random(f"{seed}/{'/'.join(part)}").sample(range(len(files[part])), counts[part])
    ]
    Random(f"{seed}/order").shuffle(order)
    for part, place in order:
        example = files[part][place]
        name = f"{'/'.join(part)}/{example.id}"
        if len(name) > MAX_ID_CHARS:
            raise DataError(f"{example.place}: with its data set's name, the id is longer than {MAX_ID_CHARS} characters.")
        yield replace(example, id=name, instruction=TRAINING[part])
