"""docs/api.md describes each field as the code treats it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.api import RerankOptions
from service.errors import InvalidRequest
from service.gateway.dialects import native
from service.gateway.dialects.fields.names import IGNORED, STEERING, SYNONYMS
from service.gateway.info import EXAMPLE, model_entry
from service.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
VALUES = {
    "rank_fields": ["text", "title"],
    "top_k": 1,
    "truncation": False,
    "return_text": True,
    "kwargs": '{"instruction": "value"}',
}
ROWS = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE))


def test_each_field_that_the_code_names_is_on_the_page() -> None:
    assert ROWS.keys() >= {*IGNORED, *STEERING, *SYNONYMS}


@pytest.mark.parametrize("name", ROWS)
def test_what_the_page_says_of_a_field_is_what_becomes_of_it(name: str) -> None:
    body = {
        "query": "q",
        "documents": [{"text": "d", "title": "t"} if name == "rank_fields" else "d"],
    }
    value = VALUES.get(name, "value")
    said = ROWS[name]
    if said.startswith("refused"):
        with pytest.raises(InvalidRequest):
            native.read(body | {name: value}, Limits())
        return
    read = native.read(body | {name: value}, Limits())
    warned = [warning for warning in read.warnings if warning.startswith(f"{name} ")]
    assert bool(warned) == ("named in `meta.warnings`" in said)
    if name in SYNONYMS:
        assert f"taken as `{SYNONYMS[name]}`" in said
        assert read == replace(
            native.read(body | {SYNONYMS[name]: value}, Limits()), warnings=read.warnings
        )
    assert (name in RerankOptions.model_fields) == said.startswith("taken,")


def test_the_page_has_each_property_of_a_model() -> None:
    section = PAGE.partition("\n## Models\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    shape = {"id", "object", "created", "owned_by", "root"}
    assert set(rows) == model_entry(EXAMPLE.model, EXAMPLE).keys() - shape
