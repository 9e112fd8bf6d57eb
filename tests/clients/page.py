"""The blocks of code in docs/clients.md, and its table of messages and retries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
PRINTED_URL = "http://127.0.0.1:8000"
_HEADING_OR_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$"
    r"|^```(?:python|js) (?P<environment>[a-z-]+) (?P<name>[a-z0-9-]+)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_ROW = re.compile(
    r"^\| (?P<heading>[^|]+) \| (?P<busy>\d+)(?P<at_once> at once)? \| (?P<empty>\d+)(?: at once)?"
    r" \| (?P<shown>[^|]+) \|$"
)
_NAMES = "names"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. Its environment and its name follow the language on the block's first line,
    which a rendered page does not show. `heading` is that of its section."""

    environment: str
    name: str
    heading: str
    code: str

    @property
    def sends_key(self) -> bool:
        return 'KEY"' in self.code

    @property
    def reads_files(self) -> bool:
        """True if its documents are not those of the page."""
        return "read_bytes" in self.code


@dataclass(frozen=True, slots=True)
class Row:
    """A client's behaviour: its requests until it gives up, where its request in flight is its
    quota and where no worker is ready, and the part of an error that its user sees. `waits` is
    whether it obeys `Retry-After`."""

    busy: int
    empty: int
    waits: bool
    shown: str


def _read_blocks() -> list[Block]:
    blocks: list[Block] = []
    heading = ""
    for found in _HEADING_OR_BLOCK.finditer(PAGE):
        if found["heading"]:
            heading = found["heading"]
        else:
            blocks.append(Block(found["environment"], found["name"], heading, found["code"]))
    return blocks


def rows() -> dict[str, Row]:
    """The table of messages and retries, by the heading of a client's section."""
    found: dict[str, Row] = {}
    for line in PAGE.splitlines():
        if row := _ROW.match(line):
            busy, empty = int(row["busy"]), int(row["empty"])
            waits = busy > 1 and not row["at_once"]
            found[row["heading"]] = Row(busy, empty, waits, row["shown"])
    return found


def page_names() -> dict[str, Any]:
    """The names that the page defines for all its blocks: a query, documents, and pictures."""
    scope: dict[str, Any] = {}
    exec(_NAMES_BLOCK.code, scope)
    return {name: scope[name] for name in ("query", "documents", "pictures")}


_ALL = _read_blocks()
_NAMES_BLOCK = next(block for block in _ALL if block.name == _NAMES)
BLOCKS = [block for block in _ALL if block.name != _NAMES]
