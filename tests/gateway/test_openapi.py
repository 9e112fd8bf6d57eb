"""The OpenAPI document: every dialect's types and examples, and each example is a request that a
running service answers in the dialect's shape."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import TypeAdapter

from service.gateway.app import create_gateway
from service.gateway.dialects.catalogue import DIALECTS, choose
from service.gateway.dialects.dialect import Dialect, Example, RequestMarks
from service.gateway.dialects.pictures import BLUE_SQUARE, RED_CIRCLE
from service.gateway.settings import GatewaySettings
from service.gateway.stream.endpoint import STREAM_PATH


@dataclass(frozen=True)
class Case:
    """An example of a dialect of a path."""

    path: str
    dialect: Dialect
    example: Example

    def __str__(self) -> str:
        return f"{self.path} {self.dialect.name}: {self.example.summary}"


def cases() -> Iterator[Case]:
    """Every example once, and an example of each dialect of each path."""
    seen: set[tuple[str, str]] = set()
    for path, dialects in DIALECTS.items():
        for dialect in dialects:
            for number, example in enumerate(dialect.examples):
                known = (dialect.name, example.summary)
                if number == 0 or known not in seen:
                    yield Case(path, dialect, example)
                seen.add(known)


def document() -> dict[str, Any]:
    return create_gateway(GatewaySettings(), []).openapi()


def test_an_item_has_its_public_name() -> None:
    content = json.dumps(document())
    assert '"title": "Item"' in content
    assert "ItemFields" not in content


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_an_example_is_answered_in_the_shape_of_its_dialect(
    client: httpx.Client, case: Case
) -> None:
    headers = httpx.Headers(dict(case.example.headers))
    marks = RequestMarks(frozenset(case.example.body), headers)
    assert choose(DIALECTS[case.path], marks) is case.dialect

    url = re.sub(r"{.*?}", "default/not-specified", case.path)
    answer = client.post(url, json=case.example.body, headers=dict(case.example.headers))
    assert answer.status_code == httpx.codes.OK, answer.text
    TypeAdapter(case.dialect.answer).validate_json(answer.content)


def test_every_dialect_has_an_example_in_the_document() -> None:
    paths = document()["paths"]
    for route, dialects in DIALECTS.items():
        path = re.sub(r":\w+}", "}", route)
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]
        shown = [example["value"] for example in body["examples"].values()]
        assert len(shown) == sum(len(dialect.examples) for dialect in dialects)
        for dialect in dialects:
            assert dialect.examples
            assert all(example.body in shown for example in dialect.examples)
            assert dialect.title in paths[path]["post"]["summary"]


def test_the_example_of_the_stream_is_answered_line_by_line(client: httpx.Client) -> None:
    operation = document()["paths"][STREAM_PATH]["post"]
    ((media_type, body),) = operation["requestBody"]["content"].items()
    assert list(operation["responses"]["200"]["content"]) == [media_type]
    (example,) = body["examples"].values()

    headers = {"content-type": media_type}
    answer = client.post(STREAM_PATH, content=example["value"], headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    lines = {line["id"]: line for line in map(json.loads, answer.text.splitlines())}
    assert lines["first"]["results"][0]["index"] == 1
    assert lines["second"]["results"][0]["index"] == 0
    assert lines["third"]["code"] == "invalid_request"


def references(value: object) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref" and isinstance(inner, str):
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_to_a_schema() -> None:
    page = document()
    names = {reference.removeprefix("#/components/schemas/") for reference in references(page)}
    assert names
    assert names <= page["components"]["schemas"].keys()


def test_the_document_is_the_same_at_each_start() -> None:
    assert json.dumps(document()) == json.dumps(document())


@pytest.mark.parametrize(
    ("url", "colour"), [(RED_CIRCLE, (220, 20, 20)), (BLUE_SQUARE, (20, 60, 220))]
)
def test_the_pictures_of_examples_are_what_they_are_called(
    url: str, colour: tuple[int, int, int]
) -> None:
    data = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    picture = Image.open(BytesIO(data)).convert("RGB")
    assert picture.size == (56, 56)
    assert picture.getpixel((28, 28)) == colour
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert (picture.getpixel((11, 11)) == colour) == (url is BLUE_SQUARE)
