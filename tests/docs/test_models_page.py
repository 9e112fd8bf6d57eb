"""docs/models.md has a row for each family, with what the catalogue says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_store.families.catalogue import FAMILIES
from model_store.families.template import TemplateFamily

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Families\n")[2].partition("\n## ")[0]
ROWS = {
    cells[0].strip("`"): cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in re.findall(r"^\| `.*\|$", SECTION, re.MULTILINE)
    )
}


def test_every_family_has_a_row() -> None:
    assert ROWS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_says_what_the_catalogue_does(name: str) -> None:
    _, _, begins, images, instruction, readouts, transform = ROWS[name]
    kind = FAMILIES[name]
    for readout in kind.readouts:
        assert f"`{readout.name}`" in readouts

    if not (isinstance(kind, type) and issubclass(kind, TemplateFamily)):
        return
    halves = next(iter(kind.templates.values()))
    first = "document" if "{document}" in halves[0] else "query"
    assert begins in (first, "nothing is shared")
    assert (images == "no") == (kind.image_template is None)
    if kind.document_side.max_images == 1:
        assert images == "one a side"
    assert (instruction == "yes") == any("{instruction}" in half for half in halves)
    assert f"`{kind.default_transform}`" in transform
