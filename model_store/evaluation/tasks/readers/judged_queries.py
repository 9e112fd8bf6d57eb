"""Queries of a file that are judged, out of all that it has.

Does not depend on layouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_store.evaluation.tasks.dataset import Item, Items


class JudgedQueries:
    """The queries that have judgements, in the order of their file."""

    def __init__(self, queries: Items, judgements: Mapping[str, object]) -> None:
        self._queries, self._judgements = queries, judgements
        self._ids = tuple(query for query in queries.ids if query in judgements)

    @property
    def ids(self) -> Sequence[str]:
        """The ids of judged queries."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._judgements

    def __getitem__(self, item_id: str) -> Item:
        if item_id not in self._judgements:
            raise KeyError(item_id)
        return self._queries[item_id]

    def text(self, item_id: str) -> str | None:
        """As `Items.text`."""
        if item_id not in self._judgements:
            raise KeyError(item_id)
        return self._queries.text(item_id)
