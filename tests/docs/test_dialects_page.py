"""docs/api.md has the marks of every dialect, docs/dialects.md a request of each and its answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from service.gateway.dialects.catalogue import DIALECTS, choose
from service.gateway.dialects.dialect import Example, RequestMarks
from tests.docs.pages import ROOT

TABLE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "dialects.md").read_text(encoding="utf-8")
NAMES = {dialect.name for dialects in DIALECTS.values() for dialect in dialects}
VARIABLE = ("cached", "cached_pairs", "created")
"""Fields that depend on what was asked before, or on the time."""
CUT = "..."
"""The end of a string of which the page has the beginning."""

_ROW = re.compile(r"^\| (`/[^|]*) \| ([^|]*) ?\| ([^|]+) \|$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_SECTION = re.compile(r"^## [^\n(]+\(([^)]+)\)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)\n```", re.MULTILINE | re.DOTALL)


@dataclass
class Row:
    """A path of the table: the marks of its dialects, and the one without a mark."""

    last: str
    marks: list[tuple[str, list[str], bool]] = field(default_factory=list)
    """Names, each with its marks, and whether a request needs all of them."""


def rows() -> dict[str, Row]:
    found: dict[str, Row] = {}
    for paths, marked, last in _ROW.findall(TABLE):
        row = Row(_CODE.findall(last)[0])
        for cell in marked.split(";"):
            if not cell.strip():
                continue
            name, *marks = _CODE.findall(cell)
            row.marks.append((name, marks, " and " in cell))
        found |= dict.fromkeys(_CODE.findall(paths), row)
    return found


def marked(marks: list[str]) -> RequestMarks:
    """The marks of a request, of which a header has a colon."""
    headers = dict(mark.split(": ") for mark in marks if ": " in mark)
    fields = {mark for mark in marks if ": " not in mark}
    lowered = {name.lower(): value for name, value in headers.items()}
    return RequestMarks({"query", *fields}, lowered)


def test_the_table_has_every_path_and_its_dialects_in_their_order() -> None:
    assert rows().keys() == DIALECTS.keys()
    for path, row in rows().items():
        named = [name for name, _, _ in row.marks] + [row.last]
        assert named == [dialect.name for dialect in DIALECTS[path]], path


@pytest.mark.parametrize("path", DIALECTS)
def test_a_dialect_has_the_marks_of_the_table(path: str) -> None:
    row = rows()[path]
    assert choose(DIALECTS[path], marked([])).name == row.last
    for name, marks, together in row.marks:
        groups = [marks] if together else [[mark] for mark in marks]
        for group in groups:
            assert choose(DIALECTS[path], marked(group)).name == name


@dataclass(frozen=True)
class Section:
    """A dialect's section of the page."""

    names: list[str]
    path: str
    headers: dict[str, str]
    request: Any
    answer: Any

    def __str__(self) -> str:
        return self.names[0]


def sections() -> list[Section]:
    found: list[Section] = []
    for names, text in _SECTION.findall(PAGE):
        (_, http), (_, request), (_, answer) = _BLOCK.findall(text)
        first, *headers = http.splitlines()
        found.append(
            Section(
                _CODE.findall(names),
                first.removeprefix("POST "),
                dict(line.split(": ") for line in headers),
                json.loads(request),
                json.loads(answer),
            )
        )
    return found


def test_every_dialect_has_a_section() -> None:
    named = [name for section in sections() for name in section.names]
    assert sorted(named) == sorted(NAMES)


@pytest.mark.parametrize("section", sections(), ids=str)
def test_the_answer_on_the_page_is_given_to_the_request_on_it(
    client: httpx.Client, section: Section
) -> None:
    example = _example(section)
    answer = client.post(section.path, json=example.body, headers=section.headers)

    assert answer.is_success, answer.text
    assert_like(answer.json(), section.answer)


def _example(section: Section) -> Example:
    """The dialect's example that the page shows, with images that are not cut."""
    for dialects in DIALECTS.values():
        for dialect in dialects:
            if dialect.name != section.names[0]:
                continue
            for example in dialect.examples:
                shown = json.loads(json.dumps(example.body, default=dict))
                if _is_like(shown, section.request) and example.headers == section.headers:
                    return example
    raise AssertionError(f"no example of {section} is on the page")


def _is_like(value: Any, shown: Any) -> bool:
    try:
        assert_like(value, shown)
    except AssertionError:
        return False
    return True


def assert_like(value: Any, shown: Any, name: str = "") -> None:
    """Fail where a value is not what the page shows, beside rounding and cut strings."""
    if isinstance(shown, dict):
        assert isinstance(value, dict), name
        assert list(value) == list(shown), name
        for key in shown:
            assert_like(value[key], shown[key], key)
    elif isinstance(shown, list):
        assert isinstance(value, list), name
        assert len(value) == len(shown), name
        for inner, inner_shown in zip(value, shown, strict=True):
            assert_like(inner, inner_shown, name)
    elif isinstance(shown, str) and shown.endswith(CUT):
        assert str(value).startswith(shown.removesuffix(CUT)), name
    elif isinstance(shown, float):
        assert value == pytest.approx(shown, abs=2e-3), name
    elif name not in VARIABLE:
        assert value == shown, name
