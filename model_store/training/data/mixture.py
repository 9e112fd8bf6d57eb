"""The paper's training mixture (table 7), drawn from converted files.

Does not depend on layouts. The paper gives a number of rows for each task, not for each data set.
The number is divided evenly among the task's data sets; where one is too small, the others fill in.
One file may hold two tasks: a row belongs to the task whose modalities its query and positives
have. Invariant: equal files and an equal seed give the same rows in the same order, each row at
most once, and none with the instruction of another task.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from random import Random

from model_store.errors import DataError, WrongUsage
from model_store.output_files import check_outputs
from model_store.training.data.image_files import ImageMode
from model_store.training.data.instructions import MODALITIES, TRAINING
from model_store.training.data.row_files import write_examples
from model_store.training.data.row_index import Examples
from model_store.training.data.rows import MAX_ID_CHARS, Example, modality_of

TaskDataset = tuple[str, str]
"""A task and a data set, such as `("T-IT", "WebQA")`."""


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
class Mixture:
    """Counts of a mixture: rows of each part, rows that each task lacks, and rows of each part's
    file that belong to another task."""

    rows: dict[TaskDataset, int]
    short: dict[str, int]
    of_other_tasks: dict[TaskDataset, int]


def divide_evenly(number: int, available: Sequence[int]) -> list[int]:
    """`number` divided evenly, no share larger than what is available.

    The shares sum to `number`, or to all that is available.
    """
    shares = [0] * len(available)
    left = number
    smallest_first = sorted(range(len(available)), key=available.__getitem__)
    for done, index in enumerate(smallest_first):
        even = -(-left // (len(available) - done))  # rounded up
        shares[index] = min(available[index], even)
        left -= shares[index]
    return shares


def parse_source(text: str) -> tuple[TaskDataset, Path]:
    """The part and the file of `TASK/DATASET=FILE`; raises `WrongUsage`."""
    name, equals, path = text.partition("=")
    task, slash, dataset = name.partition("/")
    if not (equals and slash and path):
        raise WrongUsage(f"A --source is TASK/DATASET=FILE, not {text!r}.")
    return (task, dataset), Path(path)


def parse_sources(texts: Iterable[str]) -> dict[TaskDataset, Path]:
    """The file of each part; raises `WrongUsage` for a part that is given twice."""
    sources: dict[TaskDataset, Path] = {}
    for text in texts:
        part, path = parse_source(text)
        if part in sources:
            raise WrongUsage(f"--source {'/'.join(part)} is given twice.")
        sources[part] = path
    return sources


def mix(
    sources: Mapping[TaskDataset, Path],
    target: Path,
    *,
    scale: float = 1.0,
    seed: int = 0,
    partial: bool = False,
    image_mode: ImageMode = "reference",
) -> Mixture:
    """Write the mixture of table 7, each task's number times `scale`, with table 10's instructions.

    Rows are drawn and ordered by `seed`; memory is two numbers a row. `partial` allows that data
    sets are missing; `image_mode` is for images outside the target's folder. Raises `DataError`;
    nothing is written where a source is unknown or missing, or where one file is given for two
    parts with the same modalities.
    """
    _check_sources(sources, partial)
    check_outputs(target, inputs=set(sources.values()))
    pools = {part: _Pool(part, path) for part, path in sources.items()}

    counts: dict[TaskDataset, int] = {}
    short: dict[str, int] = {}
    for task in TABLE_7:
        parts = [(task.task, dataset) for dataset in task.datasets if (task.task, dataset) in pools]
        number = round(task.number * scale)
        shares = divide_evenly(number, [len(pools[part].rows) for part in parts])
        counts.update(zip(parts, shares, strict=True))
        if sum(shares) < number:
            short[task.task] = number - sum(shares)

    others = {part: len(pool.examples) - len(pool.rows) for part, pool in pools.items()}
    write_examples(target, _draw(pools, counts, seed), image_mode)
    return Mixture(counts, short, others)


class _Pool:
    """The rows of a file that belong to a part's task, by index."""

    def __init__(self, part: TaskDataset, path: Path) -> None:
        task, _ = part
        self.examples = Examples(path)
        self.rows = array("Q")
        for index, example in enumerate(self.examples):
            if modalities_of(example) == MODALITIES[task]:
                self.rows.append(index)


def modalities_of(example: Example) -> tuple[str, str] | None:
    """The modalities of the query and of all positives; None where the positives differ."""
    positives = {modality_of(side) for side in example.positives}
    if len(positives) > 1:
        return None
    return modality_of(example.query), positives.pop()


def _check_sources(sources: Mapping[TaskDataset, Path], partial: bool) -> None:
    """Raise `WrongUsage` where a part is unknown or missing, or would take another's rows."""
    known = {"/".join(part): part for part in TRAINING}
    taken: dict[tuple[Path, tuple[str, str]], TaskDataset] = {}
    for part, path in sources.items():
        if part not in TRAINING:
            nearest = get_close_matches("/".join(part), known, n=1)
            suggestion = f": is it {nearest[0]}?" if nearest else "."
            raise WrongUsage(f"{'/'.join(part)} is not in the mixture{suggestion}")

        first = taken.setdefault((path.resolve(), MODALITIES[part[0]]), part)
        if first != part:
            raise WrongUsage(
                f"{path} is given for {'/'.join(first)} and for {'/'.join(part)}, which have the"
                " same modalities: each of its rows would be taken twice."
            )

    missing = [name for name, part in known.items() if part not in sources]
    if missing and not partial:
        raise WrongUsage(f"The mixture lacks {', '.join(missing)}; --partial allows that.")


def _draw(
    pools: Mapping[TaskDataset, _Pool], counts: Mapping[TaskDataset, int], seed: int
) -> Iterator[Example]:
    """`counts` rows of each part, in random order, with the paper's instructions."""
    order: list[tuple[TaskDataset, int]] = []
    for part in sorted(counts):
        rows = pools[part].rows
        chosen = Random(f"{seed}/{'/'.join(part)}").sample(range(len(rows)), counts[part])
        order.extend((part, rows[number]) for number in chosen)
    Random(f"{seed}/order").shuffle(order)

    for part, index in order:
        example = pools[part].examples[index]
        name = f"{'/'.join(part)}/{example.id}"
        if len(name) > MAX_ID_CHARS:
            raise DataError(
                f"{example.location}: with its data set's name, the id is longer than"
                f" {MAX_ID_CHARS} characters."
            )
        yield replace(example, id=name, instruction=TRAINING[part])
