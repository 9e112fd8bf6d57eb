"""Items of a file or a table that are found by their ids.

Does not depend on where items are read from. Invariant: an item is read when it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from model_store.evaluation.tasks.dataset import Item
from model_store.evaluation.tasks.readers.ids import Ids


class ItemsById(ABC):
    """`Items` whose ids are known; a subclass sets `_ids` and reads an item by its number."""

    _ids: Ids

    @property
    def ids(self) -> Sequence[str]:
        """All ids, in the order of the data."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._ids

    def __getitem__(self, item_id: str) -> Item:
        return self._read(self._number(item_id), item_id)

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        return self._read_text(self._number(item_id), item_id)

    def _number(self, item_id: str) -> int:
        number = self._ids.find(item_id)
        if number is None:
            raise KeyError(item_id)
        return number

    @abstractmethod
    def _read(self, number: int, item_id: str) -> Item:
        """The item with a number and an id. Raises `TaskUnusable`."""

    @abstractmethod
    def _read_text(self, number: int, item_id: str) -> str | None:
        """The text of that item, without its image being read. Raises `TaskUnusable`."""
