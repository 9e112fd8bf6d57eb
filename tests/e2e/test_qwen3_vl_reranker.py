"""Qwen3-VL-Reranker behind `POST /rerank`: pictures of any size score as the authors' code reads
them, and the service tells the sizes that it reads."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import CALM, free_port, running
from tests.qwen3_vl import AuthorsCode, Side, picture, write_qwen3_vl

BOUNDS = {"size": {"shortest_edge": 4096, "longest_edge": 20_480}}
"""Bounds that small pictures reach."""
QUERY: Side = (picture(0, 100, 75), "what is this?")
DOCUMENTS: list[Side] = [
    ("a text",),
    (picture(1, 333, 222),),
    (picture(2, 20, 31), "a caption"),
    (picture(3, 640, 64),),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3-vl-reranker-small"
    return write_qwen3_vl(folder, seed=7, processor=BOUNDS)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    arguments = ("serve", "--model", str(folder))
    with running(*arguments, port=free_port(), log=log, **CALM) as found:
        yield found


def as_json(side: Side) -> dict[str, str]:
    """A side of at most one text and one picture, as a request has it."""
    item: dict[str, str] = {}
    for part in side:
        if isinstance(part, Image.Image):
            file = io.BytesIO()
            part.save(file, "PNG")
            item["image"] = base64.b64encode(file.getvalue()).decode()
        else:
            item["text"] = part
    return item


def test_pictures_score_as_the_authors_code_reads_them(url: str, folder: Path) -> None:
    authors = AuthorsCode(folder)
    body: dict[str, Any] = {"documents": [as_json(side) for side in DOCUMENTS]}
    for query in (QUERY, ("a text",)):
        answer = httpx.post(f"{url}/rerank", json=body | {"query": as_json(query)}).json()
        found = {result["index"]: result["logit"] for result in answer["results"]}
        for index, document in enumerate(DOCUMENTS):
            assert found[index] == pytest.approx(authors.logit(query, document), abs=1e-3)

    tokens = {result["index"]: result["meta"]["image_tokens"] for result in answer["results"]}
    assert [tokens[index] for index in range(4)] == [0, 3 * 5, 3 * 2, 1 * 14]


def test_info_names_the_bounds_of_pictures(url: str) -> None:
    info = httpx.get(f"{url}/info").json()
    assert info["family"] == "qwen3-vl-reranker"
    assert info["limits"]["image_cell"] == 32
