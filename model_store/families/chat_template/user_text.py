"""The texts of a pair as a template gets them: they note each operation that depends on them.

Runs in the process of templates, and depends on Jinja alone. Invariant: what is made of a text of
the pair by joining, stripping or replacing is one too, so that later operations are noted as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import TemplateError

_EDGES = {str.strip, str.lstrip, str.rstrip}

reads: set[str] = set()
"""Operations of the current job whose result depends on a text of the pair."""
replaces: list[tuple[str, str]] = []
"""Replacements of the current job in texts of the pair."""


class Refused(TemplateError):
    """The template did what this program does not allow; the text is a clause."""


class UserText(str):
    """A text of the pair, or one that has such a text in it.

    Joining it with others and stripping its ends keep the class. The caller sees the effect of
    those, and is told of everything else that depends on the text, but for its emptiness.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> str:
        return UserText(str.__add__(self, other))

    def __radd__(self, other: str) -> str:
        return UserText(str.__add__(other, self))

    def __rmod__(self, form: str) -> str:
        return UserText(str.__mod__(form, str.__str__(self)))

    def __format__(self, spec: str) -> str:
        if spec:
            reads.add("format")
        return str.__format__(self, spec)

    def __bool__(self) -> bool:
        return str.__len__(self) > 0

    def __len__(self) -> int:
        reads.add("length")
        return str.__len__(self)

    def __hash__(self) -> int:
        reads.add("key")
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) and str.__ne__(other, ""):
            reads.add("comparison")
        return bool(str.__eq__(self, other)) if isinstance(other, str) else False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __iter__(self) -> Iterator[str]:
        # a generator: the test `is iterable` begins no iteration
        reads.add("iteration")
        yield from str.__iter__(self)

    def replace(self, old: str, new: str, count: Any = -1) -> str:
        if count != -1:
            reads.add("replace")
        replaces.append((str(old), str(new)))
        return UserText(str.replace(self, old, new, count))


def _noted(name: str) -> Callable[..., Any]:
    own = getattr(str, name)

    def method(self: UserText, *args: Any, **options: Any) -> Any:
        if own in _EDGES and not any(args):
            return UserText(own(self))
        reads.add(name.strip("_"))
        result = own(self, *args, **options)
        return UserText(result) if isinstance(result, str) else result

    return method


for _name in dir(str):
    _hidden = _name.startswith("_")
    _compares = _name in ("__contains__", "__getitem__", "__lt__", "__le__", "__gt__", "__ge__")
    if (_compares or not _hidden) and _name not in vars(UserText):
        setattr(UserText, _name, _noted(_name))
for _name in ("__mod__", "__mul__", "__rmul__"):
    setattr(UserText, _name, _noted(_name))


class Length(int):
    """The length of a text of the pair: only a comparison with nothing does not depend on it."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return int.__bool__(self)

    def _compared(self, other: Any, name: str) -> Any:
        at_least_one = name in ("__ge__", "__lt__") and other == 1
        nothing = name in ("__eq__", "__ne__", "__gt__", "__le__") and other == 0
        if not (nothing or at_least_one):
            reads.add("length")
        return getattr(int, name)(self, other)

    def __eq__(self, other: object) -> bool:
        return bool(self._compared(other, "__eq__"))

    def __ne__(self, other: object) -> bool:
        return bool(self._compared(other, "__ne__"))

    def __gt__(self, other: int) -> bool:
        return bool(self._compared(other, "__gt__"))

    def __ge__(self, other: int) -> bool:
        return bool(self._compared(other, "__ge__"))

    def __lt__(self, other: int) -> bool:
        return bool(self._compared(other, "__lt__"))

    def __le__(self, other: int) -> bool:
        return bool(self._compared(other, "__le__"))

    def __hash__(self) -> int:
        reads.add("length")
        return int.__hash__(self)


def _computed(name: str) -> Callable[..., Any]:
    own = getattr(int, name)

    def method(self: Length, *args: Any) -> Any:
        reads.add("length")
        return own(self, *args)

    return method


for _name in ("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__str__", "__index__"):
    setattr(Length, _name, _computed(_name))


class Picture:
    """The image of a part, of which a template may know that it is there."""

    __slots__ = ()

    def __str__(self) -> str:
        raise Refused("it prints the data of an image")
