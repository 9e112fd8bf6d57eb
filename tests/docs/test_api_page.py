"""docs/api.md describes each field as the code treats it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api import RerankOptions
from service.errors import InvalidRequest
from service.gateway.dialects import native
from service.gateway.dialects.field_names import IGNORED, INSTRUCTION_NAMES, STEERING
from service.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))


def test_each_field_that_the_code_names_is_on_the_page() -> None:
    assert ROWS.keys() >= {*IGNORED, *STEERING, *INSTRUCTION_NAMES}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_page_says_of_a_field_is_what_becomes_of_it(name: str) -> None:
    body = {
        "query": "q",
        "documents": [{"text": "d", "title": "t"} if name == "rank_fields" else "d"],
    }
    value = ["text", "title"] if name == "rank_fields" else "value"
    said = ROWS[name]
    if said.startswith("refused"):
        with pytest.raises(InvalidRequest):
            native.read(body | {name: value}, Limits())
        return
    read = native.read(body | {name: value}, Limits())
    warned = [warning for warning in read.warnings if warning.startswith(f"{name} ")]
    assert bool(warned) == ("named in `meta.warnings`" in said)
    assert (read.instruction == value) == ("taken as `instruction`" in said)
    assert (name in RerankOptions.model_fields) == said.startswith("taken,")
