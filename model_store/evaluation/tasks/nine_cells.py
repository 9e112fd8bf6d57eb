"""The generated nine cells as a benchmark of nine tasks, for runs through a service.

Does not depend on networks. Invariant: its queries and candidates are those of
`model_store.evaluation.nine_cells`, so that a run's results and those of `gmr eval MODEL OUTPUT`
are results of one benchmark. The cells have no first stage: candidates are in a random order, which
is always the same, so that a report shows chance in its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import chain
from random import Random

from PIL import Image

from model_store.evaluation.nine_cells import CANDIDATES, CUT, instruction, question
from model_store.evaluation.tasks.benchmark import Benchmark, Task
from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable
from model_store.synthetic.cells import CELLS
from model_store.synthetic.examples import Example, Side

NINE_CELLS = "nine-cells"
DEFAULT_QUERIES = 50
"""Queries of each cell."""
_EXAMPLES_KEPT = 64


def nine_cells(queries: int) -> Benchmark:
    """The benchmark with so many queries of each cell."""
    metric = f"ndcg@{CUT}"
    tasks = tuple(Task(cell, cell, metric, (_Cell(cell, queries),)) for cell in CELLS)
    return Benchmark(f"nine-cells-{queries}", tasks)


@dataclass(frozen=True, slots=True)
class _Cell:
    """The dataset of one cell. The query `T-I/3` has the documents `T-I/3/0` to `T-I/3/19`, of
    which the first is relevant."""

    name: str
    count: int

    def load(self) -> Dataset:
        queries = [f"{self.name}/{number}" for number in range(self.count)]
        candidates = {query: _shuffled(query) for query in queries}
        documents = list(chain.from_iterable(candidates.values()))
        described = f"nine-cells/{self.name}/{self.count}/{CANDIDATES}/shuffled"
        return Dataset(
            self.name,
            _Generated(queries, _query),
            _Generated(documents, _document),
            judgements={query: {f"{query}/0": 1} for query in queries},
            digest=f"sha256:{hashlib.sha256(described.encode()).hexdigest()}",
            candidates=candidates,
            instructions={
                query: instruction(self.name, number) for number, query in enumerate(queries)
            },
        )


def _shuffled(query: str) -> list[str]:
    """The documents of a query in a random order."""
    documents = [f"{query}/{number}" for number in range(CANDIDATES)]
    Random(query).shuffle(documents)
    return documents


@lru_cache(_EXAMPLES_KEPT)
def _example(query: str) -> Example:
    cell, _, number = query.rpartition("/")
    return question(cell, int(number))


class _Generated:
    """Items by id, which are generated when they are asked for."""

    def __init__(self, ids: Sequence[str], side: Callable[[str], Side]) -> None:
        self.ids = ids
        self._known = frozenset(ids)
        self._side = side

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._known

    def __getitem__(self, item_id: str) -> Item:
        if item_id not in self._known:
            raise TaskUnusable(f"The nine cells have no item {item_id!r}.")
        return _item(item_id, self._side(item_id))

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        return self[item_id].text


def _query(query: str) -> Side:
    return _example(query).query


def _document(document: str) -> Side:
    query, _, number = document.rpartition("/")
    return _example(query).documents[int(number)]


def _item(item_id: str, side: Side) -> Item:
    """A side of a pair as an item: at most one picture, then at most one text."""
    text: str | None = None
    image: bytes | None = None
    for part in side:
        if isinstance(part, Image.Image):
            assert image is None
            assert text is None
            image = _png(part)
        else:
            assert text is None
            text = part
    return Item(item_id, text, image)


def _png(picture: Image.Image) -> bytes:
    written = BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()
