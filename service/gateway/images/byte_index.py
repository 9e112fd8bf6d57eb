"""Sizes of stored images in the order of their last use, within a bound that scopes share.

The module depends on names and scopes, on no image and no clock. Invariant: the bytes never exceed
the bound, and no scope makes another's images go while it holds more than half of the bound itself.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Scope:
    """The entries of one scope, the least recently used first: size by name."""

    total: int = 0
    sizes: OrderedDict[bytes, int] = field(default_factory=OrderedDict)


class ByteIndex:
    """Names with sizes, each of one scope, up to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        self._scope_of: OrderedDict[bytes, bytes] = OrderedDict()
        self._scopes: dict[bytes, _Scope] = {}
        self._heavy: bytes | None = None
        """The scope that holds more than half of the bound, if one does."""

    def __contains__(self, name: bytes) -> bool:
        return name in self._scope_of

    def __len__(self) -> int:
        return len(self._scope_of)

    def add(self, scope: bytes, name: bytes, size: int) -> list[bytes]:
        """Add an entry as the last one used, and return the names that had to go for it.

        An entry of the name is replaced. One that is larger than half of the bound may have to go
        itself.
        """
        self.remove(name)
        entry = self._scopes.setdefault(scope, _Scope())
        self._scope_of[name] = scope
        entry.sizes[name] = size
        entry.total += size
        self.total += size
        if 2 * entry.total > self.max_bytes:
            self._heavy = scope

        gone: list[bytes] = []
        while self.total > self.max_bytes:
            oldest = self._next_to_go()
            self.remove(oldest)
            gone.append(oldest)
        return gone

    def use(self, name: bytes) -> bool:
        """Make an entry the last one used; False where there is none."""
        scope = self._scope_of.get(name)
        if scope is None:
            return False
        self._scope_of.move_to_end(name)
        self._scopes[scope].sizes.move_to_end(name)
        return True

    def remove(self, name: bytes) -> None:
        """Remove an entry, if there is one."""
        scope = self._scope_of.pop(name, None)
        if scope is None:
            return

        entry = self._scopes[scope]
        size = entry.sizes.pop(name)
        entry.total -= size
        self.total -= size
        if not entry.sizes:
            del self._scopes[scope]
        if scope == self._heavy and 2 * entry.total <= self.max_bytes:
            self._heavy = None

    def oldest(self) -> bytes | None:
        """The name of the least recently used entry."""
        return next(iter(self._scope_of), None)

    def _next_to_go(self) -> bytes:
        """The oldest entry of the scope that holds more than half, or else of all."""
        if self._heavy is not None:
            return next(iter(self._scopes[self._heavy].sizes))
        return next(iter(self._scope_of))
