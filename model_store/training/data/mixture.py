"""The paper's training mixture (table 7), drawn from converted files.

Knows tasks, data sets and numbers, no layout. The paper gives a number for each task, not for each
data set: a task's number is shared evenly, and what a small data set cannot give, the others of its
task do. A data set of two tasks may be one file: a row is of the task whose modalities its query
and its positives have. Invariant: the same files and seed give the same rows in the same order,
each row at most once, and none under the instruction of another task.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from random import Random

from model_store.training.data.image_files import ImageMode
from model_store.training.data.instructions import MODALITIES, TRAINING
from model_store.training.data.row_files import check_outputs, write_examples
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import MAX_ID_CHARS, DataError, Example, WrongUsage, modality_of

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
    """What a mixture has of each part, by how much each task falls short of its number, and how
    many rows of each part's file are of another task."""

    rows: dict[Part, int]
    short: dict[str, int]
    of_other_tasks: dict[Part, int]


def shares(number: int, available: Sequence[int]) -> list[int]:
    """`number` shared evenly, none more than is available; what does not divide goes to the first.
    Sums to what there is."""
    taken = [0] * len(available)
    left = number
    for after, place in enumerate(sorted(range(len(available)), key=available.__getitem__)):
        taken[place] = min(available[place], -(-left // (len(available) - after)))
        left -= taken[place]
    return taken


def parse_source(written: str) -> tuple[Part, Path]:
    """`TASK/DATASET=FILE`, as people write it; raises `WrongUsage`."""
    name, equals, path = written.partition("=")
    task, slash, dataset = name.partition("/")
    if not (equals and slash and path):
        raise WrongUsage(f"A --source is TASK/DATASET=FILE, not {written!r}.")
    return (task, dataset), Path(path)


def parse_sources(written: Iterable[str]) -> dict[Part, Path]:
    """Each part's file; raises `WrongUsage` for a part that is there twice."""
    sources: dict[Part, Path] = {}
    for one in written:
        part, path = parse_source(one)
        if part in sources:
            raise WrongUsage(f"--source {'/'.join(part)} is given twice.")
        sources[part] = path
    return sources


def mix(
    sources: Mapping[Part, Path],
    target: Path,
    *,
    scale: float = 1.0,
    seed: int = 0,
    partial: bool = False,
    image_mode: ImageMode = "reference",
) -> Drawn:
    """Write the mixture of table 7, each task's number times `scale`, with table 10's instructions.

    Rows are drawn and ordered by `seed`; memory is two numbers a row. `partial` allows that data
    sets are missing; `image_mode` is for images outside the target's folder. Raises `DataError`;
    nothing is written where a source is unknown or missing, or where one file is given for two
    parts with the same modalities.
    """
    _known(sources, partial)
    check_outputs(target, inputs=set(sources.values()))
    pools = {part: _Pool(part, path) for part, path in sources.items()}
    counts: dict[Part, int] = {}
    short: dict[str, int] = {}
    for task in TABLE_7:
        parts = [(task.task, dataset) for dataset in task.datasets if (task.task, dataset) in pools]
        wanted = round(task.number * scale)
        given = shares(wanted, [len(pools[part].places) for part in parts])
        counts.update(zip(parts, given, strict=True))
        if sum(given) < wanted:
            short[task.task] = wanted - sum(given)
    others = {part: len(pool.examples) - len(pool.places) for part, pool in pools.items()}
    write_examples(target, _drawn(pools, counts, seed), image_mode)
    return Drawn(counts, short, others)


class _Pool:
    """The rows of a file that are of one task: those whose query and positives have its
    modalities."""

    def __init__(self, part: Part, path: Path) -> None:
        self.examples = Examples(path)
        wanted = MODALITIES[part[0]]
        self.places = array("Q")
        for place, example in enumerate(self.examples):
            if modalities_of(example) == wanted:
                self.places.append(place)


def modalities_of(example: Example) -> tuple[str, str] | None:
    """The modalities of the query and of all positives; None where the positives differ."""
    positives = {modality_of(side) for side in example.positives}
    return (modality_of(example.query), positives.pop()) if len(positives) == 1 else None


def _known(sources: Mapping[Part, Path], partial: bool) -> None:
    wanted = {f"{task}/{dataset}": (task, dataset) for task, dataset in TRAINING}
    taken: dict[tuple[Path, tuple[str, str]], Part] = {}
    for part, path in sources.items():
        if part not in TRAINING:
            near = get_close_matches("/".join(part), wanted, n=1)
            raise WrongUsage(
                f"{'/'.join(part)} is not in the mixture{f': is it {near[0]}?' if near else '.'}"
            )
        first = taken.setdefault((path.resolve(), MODALITIES[part[0]]), part)
        if first != part:
            raise WrongUsage(
                f"{path} is given for {'/'.join(first)} and for {'/'.join(part)}, which have the"
                " same modalities: each of its rows would be taken twice."
            )
    missing = [name for name, part in wanted.items() if part not in sources]
    if missing and not partial:
        raise WrongUsage(f"The mixture lacks {', '.join(missing)}; --partial allows that.")


def _drawn(pools: Mapping[Part, _Pool], counts: Mapping[Part, int], seed: int) -> Iterator[Example]:
    order: list[tuple[Part, int]] = []
    for part in sorted(counts):
        places = pools[part].places
        chosen = Random(f"{seed}/{'/'.join(part)}").sample(range(len(places)), counts[part])
        order.extend((part, places[number]) for number in chosen)
    Random(f"{seed}/order").shuffle(order)

    for part, place in order:
        example = pools[part].examples[place]
        name = f"{'/'.join(part)}/{example.id}"
        if len(name) > MAX_ID_CHARS:
            raise DataError(
                f"{example.place}: with its data set's name, the id is longer than {MAX_ID_CHARS}"
                " characters."
            )
        yield replace(example, id=name, instruction=TRAINING[part])
