"""A model of text behind `POST /rerank`: scores as its authors' code gives them, and a clear answer
for an image."""

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
from tests.qwen3 import INSTRUCTION, AuthorsCode, write_qwen3

QUERY = "how do I sort a list"
DOCUMENTS = ["Sort the list in ascending order.", "Berlin is a city.", "lists, sorted"]

pytestmark = pytest.mark.slow


def picture() -> dict[str, str]:
    file = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen3(tmp_path_factory.mktemp("models") / "qwen3-small", seed=5)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    arguments = ("serve", "--model", str(folder))
    with running(*arguments, port=free_port(), log=log, **CALM) as found:
        yield found


def rerank(url: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}/rerank", json={"query": QUERY, "documents": DOCUMENTS} | body)


def test_scores_are_those_of_the_authors_code(url: str, folder: Path) -> None:
    answer = rerank(url).json()
    assert answer["model"] == "qwen3-small"
    assert answer["meta"]["cached_pairs"] == 0

    authors = AuthorsCode(folder)
    for result in answer["results"]:
        yes, no = authors.logits(INSTRUCTION, QUERY, DOCUMENTS[result["index"]])
        assert result["logit"] == pytest.approx(yes - no, abs=1e-3)
        assert result["meta"]["image_tokens"] == 0
    logits = [result["logit"] for result in answer["results"]]
    assert logits == sorted(logits, reverse=True)
    assert rerank(url).json()["meta"]["cached_pairs"] == 3


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"query": picture()}, "query"),
        ({"documents": ["a", picture()]}, "documents[1]"),
        ({"documents": ["a", {"text": "b"} | picture()]}, "documents[1]"),
    ],
)
def test_an_image_is_refused_with_its_place(url: str, body: dict[str, Any], place: str) -> None:
    refused = rerank(url, **body)
    assert refused.status_code == 400
    assert refused.json()["code"] == "invalid_request"
    assert refused.json()["message"] == (
        f"{place}: the model qwen3-small reads text only, and this item has an image."
    )


def test_a_document_with_an_image_can_be_skipped(url: str) -> None:
    answer = rerank(url, documents=["a", picture(), "b"], on_error="skip").json()
    assert sorted(result["index"] for result in answer["results"]) == [0, 2]
    (error,) = answer["errors"]
    assert error["index"] == 1
    assert error["code"] == "invalid_request"
    assert "reads text only" in error["message"]


def test_info_says_what_the_model_reads(url: str) -> None:
    info = httpx.get(f"{url}/info").json()
    assert info["family"] == "qwen3-reranker"
    assert info["reads"] == ["text"]
    assert info["read_out"] == "yes - no"
    assert "image_cell" not in info["limits"]
