"""jina-reranker-m0 behind `POST /rerank`: the scores of its authors' code in all nine cells, and a
clear answer for what it does not read."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import CALM, free_port, running
from tests.qwen2_vl import SIDES, JinaAuthors, Side, picture, side, write_qwen2_vl

DOCUMENTS = [side(kind, seed) for seed in (2, 3) for kind in SIDES]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "jina-reranker-m0"
    return write_qwen2_vl(folder, seed=6, ranking=True)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log"
    arguments = ("serve", "--model", str(folder))
    with running(*arguments, port=free_port(), log=log, **CALM) as found:
        yield found


def as_json(parts: Side) -> dict[str, str]:
    """A side as a request has it."""
    sent: dict[str, str] = {}
    for part in parts:
        if isinstance(part, str):
            sent["text"] = part
        else:
            file = io.BytesIO()
            part.save(file, "PNG")
            sent["image"] = base64.b64encode(file.getvalue()).decode()
    return sent


def rerank(url: str, **body: Any) -> httpx.Response:
    request = {"query": "q", "documents": ["a"]} | body
    return httpx.post(f"{url}/rerank", json=request, timeout=60)


@pytest.mark.parametrize("query", SIDES)
def test_scores_are_those_of_the_authors_code(url: str, folder: Path, query: str) -> None:
    asked = side(query, 1)
    documents = [as_json(document) for document in DOCUMENTS]
    answer = rerank(url, query=as_json(asked), documents=documents).json()

    authors = JinaAuthors(folder)
    for result in answer["results"]:
        raw = authors.raw_score(asked, DOCUMENTS[result["index"]])
        assert result["logit"] == pytest.approx(raw, abs=1e-3)
        assert result["relevance_score"] == pytest.approx(1 / (1 + math.exp(2.65 - raw)), abs=1e-3)
    logits = [result["logit"] for result in answer["results"]]
    assert logits == sorted(logits, reverse=True)


def two_images() -> list[dict[str, Any]]:
    urls = [f"data:image/png;base64,{as_json((picture(seed),))['image']}" for seed in (1, 2)]
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            {"instruction": "find it"},
            "instruction: the model jina-reranker-m0 has no place for an instruction: send the"
            " request without it.",
        ),
        (
            {"query": two_images()},
            "query: the model jina-reranker-m0 reads at most one image in a query, and this item"
            " has 2.",
        ),
        (
            {"documents": ["a", two_images()]},
            "documents[1]: the model jina-reranker-m0 reads at most one image in a document, and"
            " this item has 2.",
        ),
    ],
)
def test_what_it_does_not_read_is_refused(url: str, body: dict[str, Any], sentence: str) -> None:
    refused = rerank(url, **body)
    assert refused.status_code == 400
    assert refused.json()["code"] == "invalid_request"
    assert refused.json()["message"] == sentence


def test_a_document_that_it_does_not_read_can_be_skipped(url: str) -> None:
    answer = rerank(url, documents=["a", two_images(), "b"], on_error="skip").json()
    assert sorted(result["index"] for result in answer["results"]) == [0, 2]
    (error,) = answer["errors"]
    assert (error["index"], error["code"]) == (1, "invalid_request")
    assert "at most one image in a document" in error["message"]


def test_another_vendors_dialect_has_its_own_name_of_the_field(url: str) -> None:
    body = {"query": "q", "documents": ["a"], "instruct": "find it"}
    refused = httpx.post(f"{url}/v1/rerank", json=body)
    assert refused.status_code == 400
    assert "has no place for an instruction" in refused.text
    assert "instruct" in refused.text


def test_a_document_scored_twice_comes_from_the_cache(url: str) -> None:
    body = {"documents": [as_json(DOCUMENTS[1]), as_json(DOCUMENTS[2])], "query": "once"}
    first, second = rerank(url, **body).json(), rerank(url, **body).json()
    assert (first["meta"]["cached_pairs"], second["meta"]["cached_pairs"]) == (0, 2)
    assert first["results"][0]["logit"] == second["results"][0]["logit"]
