"""The sizes of datasets: how many queries and documents, and how long they are.

Does not depend on models. mteb's datasets are in a table, so that nothing is downloaded; others are
loaded, and some of their items are read. Invariant: a mean is over all items that are read of a
side, with 0 for a side without texts, or without images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import msgspec
import PIL.Image

from model_store.evaluation.tasks.dataset import Dataset, DatasetSource, Items, TaskUnusable
from model_store.evaluation.tasks.readers.mteb_source import MtebSource

_SAMPLE = 200
"""Items of a side that are read, evenly spaced."""


@dataclass(frozen=True, slots=True)
class DatasetSize:
    """Numbers of queries and documents, mean characters of texts, mean pixels of images.

    `candidates` are those of a query that come with the data, on average; None where there are
    none.
    """

    queries: int
    documents: int
    query_characters: float
    document_characters: float
    query_pixels: float
    document_pixels: float
    candidates: float | None = None


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    columns: list[str]
    datasets: dict[str, list[float]]


@cache
def read_sizes() -> dict[str, DatasetSize]:
    """The sizes of mteb's datasets by `TASK/SPLIT/SUBSET`."""
    content = files(__package__).joinpath("sizes.json").read_bytes()
    table = msgspec.json.decode(content, type=_Table)
    return {
        name: DatasetSize(int(queries), int(documents), *means)
        for name, (queries, documents, *means) in table.datasets.items()
    }


def size_of(source: DatasetSource) -> DatasetSize | None:
    """The size of a dataset; None for one of mteb that is not in the table, such as private data.

    Raises `TaskUnusable` for a dataset that is loaded and cannot be.
    """
    if isinstance(source, MtebSource):
        return read_sizes().get(f"{source.task}/{source.split}/{source.subset}")
    return _measured(source.load())


def _measured(dataset: Dataset) -> DatasetSize:
    query_characters, query_pixels = _means(dataset.queries)
    document_characters, document_pixels = _means(dataset.documents)
    judged = [query for query in dataset.queries.ids if dataset.judgements.get(query)]
    candidates: float | None = None
    if dataset.candidates is not None:
        own = sum(len(dataset.candidates.get(query, ())) for query in judged)
        candidates = own / max(1, len(judged))
    return DatasetSize(
        len(judged),
        len(dataset.documents),
        query_characters,
        document_characters,
        query_pixels,
        document_pixels,
        candidates,
    )


def _means(items: Items) -> tuple[float, float]:
    """Mean characters, and mean pixels, of some items."""
    count = min(len(items), _SAMPLE)
    ids = [items.ids[number * len(items) // count] for number in range(count)]
    characters = pixels = 0
    for item_id in ids:
        item = items[item_id]
        characters += len(item.text or "")
        if item.image is not None:
            pixels += _pixels(item.image, item_id)
    return characters / max(1, len(ids)), pixels / max(1, len(ids))


def _pixels(image: bytes, item_id: str) -> int:
    try:
        with PIL.Image.open(BytesIO(image)) as opened:
            return opened.width * opened.height
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        raise TaskUnusable(f"The image of {item_id[:80]!r} cannot be read.") from None
