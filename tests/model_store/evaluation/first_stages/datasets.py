"""Datasets in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.evaluation.tasks.dataset import Dataset, Item, TaskUnusable


class Ids(Sequence[str]):
    """Ids by index alone, as those of a large file are: no slices."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        assert isinstance(index, int)
        return self._ids[index]


class Listed:
    """Items by id. Reading one of `broken` fails, as one whose image is missing."""

    def __init__(self, items: Mapping[str, str | bytes | None], broken: Sequence[str] = ()) -> None:
        self._items, self._broken = dict(items), set(broken)

    @property
    def ids(self) -> Sequence[str]:
        return Ids(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def __getitem__(self, item_id: str) -> Item:
        if item_id in self._broken:
            raise TaskUnusable(f"{item_id} cannot be read.")
        content = self._items[item_id]
        if isinstance(content, bytes):
            return Item(item_id, None, content)
        return Item(item_id, content, None)

    def text(self, item_id: str) -> str | None:
        content = self._items[item_id]
        return None if isinstance(content, bytes) else self[item_id].text


def dataset_of(
    queries: Mapping[str, str | bytes | None] | Sequence[str],
    documents: Mapping[str, str | bytes | None] | Sequence[str],
    *,
    unreadable: Sequence[str] = (),
    **more: Any,
) -> Dataset:
    """A dataset of texts and images; lists are texts with ids q0, q1 and d0, d1."""
    if not isinstance(queries, Mapping):
        queries = {f"q{number}": text for number, text in enumerate(queries)}
    if not isinstance(documents, Mapping):
        documents = {f"d{number}": text for number, text in enumerate(documents)}
    return Dataset(
        "set",
        Listed(queries, unreadable),
        Listed(documents, unreadable),
        {},
        **{"digest": "sha256:0", **more},
    )
