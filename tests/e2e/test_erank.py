"""A model that writes its scores behind `POST /rerank`: the authors' scores, their tokens in the
accounting, and a clear error for a document without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import CALM, free_port, running
from tests.erank import ENDLESS, INSTRUCTION, QUERY, AuthorsCode, publish, write_erank

DOCUMENTS = ["It is two.", "It is nine.", "It is four."]
BAD = "It is green."

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(write_erank(tmp_path_factory.mktemp("models") / "erank-4b-small"))


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """It turns ready once its golden pairs were written as published."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with running("serve", "--model", str(folder), port=free_port(), log=log, **CALM) as found:
        yield found


def rerank(url: str, **body: Any) -> httpx.Response:
    request = {"query": QUERY, "documents": DOCUMENTS, "instruction": INSTRUCTION} | body
    return httpx.post(f"{url}/rerank", json=request, timeout=120)


def counted(url: str) -> dict[str, float]:
    """The samples of a scrape that have no labels."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    found = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value, *_ in found}


def test_scores_are_those_of_the_authors_code(url: str, folder: Path) -> None:
    answer = rerank(url).json()
    authors = AuthorsCode(folder)
    written = 0
    for result in answer["results"]:
        expected = authors.written(INSTRUCTION, QUERY, DOCUMENTS[result["index"]])
        assert result["logit"] == pytest.approx(expected.score, abs=1e-3)
        assert result["relevance_score"] == pytest.approx(result["logit"] / 10)
        assert result["meta"]["completion_tokens"] == len(expected.tokens)
        written += len(expected.tokens)
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]

    prompts = sum(result["meta"]["prompt_tokens"] for result in answer["results"])
    assert answer["usage"] == {
        "prompt_tokens": prompts,
        "completion_tokens": written,
        "total_tokens": prompts + written,
    }
    assert answer["meta"]["tokens"] == {"input_tokens": prompts, "output_tokens": written}

    again = rerank(url).json()
    assert again["meta"]["cached_pairs"] == 3
    assert [result["logit"] for result in again["results"]] == pytest.approx(
        [result["logit"] for result in answer["results"]], abs=1e-5
    )
    assert again["usage"] == {
        "prompt_tokens": prompts,
        "completion_tokens": 0,
        "total_tokens": prompts,
    }


def test_a_threshold_is_on_a_tenth_of_the_number(url: str) -> None:
    every = rerank(url).json()["results"]
    above = rerank(url, min_score=every[1]["relevance_score"]).json()["results"]
    assert [result["index"] for result in above] == [result["index"] for result in every[:2]]


@pytest.mark.parametrize("word", ["green", "light", "black", "water"])
def test_an_answer_without_a_number_is_an_error_of_its_document(url: str, word: str) -> None:
    documents = [*DOCUMENTS, f"It is {word}."]
    refused = rerank(url, documents=documents)
    assert refused.status_code == 400
    assert refused.json()["code"] == "no_score"
    assert refused.json()["errors"] == [
        {"loc": ["documents", 3], "message": refused.json()["message"]}
    ]

    skipped = rerank(url, documents=documents, on_error="skip")
    assert skipped.status_code == 200
    assert len(skipped.json()["results"]) == 3
    (error,) = skipped.json()["errors"]
    assert (error["index"], error["code"]) == (3, "no_score")
    assert "2048 tokens" in error["message"]


REQUESTS = {
    "/rerank": {"query": QUERY, "texts": [*DOCUMENTS, BAD]},
    "/v1/rerank": {"query": QUERY, "documents": [*DOCUMENTS, BAD], "top_k": 3},
    "/v2/rerank": {"query": QUERY, "documents": [*DOCUMENTS, BAD]},
    "/v1/ranking": {
        "query": {"text": QUERY},
        "passages": [{"text": text} for text in [*DOCUMENTS, BAD]],
    },
    "/v1/reranking": {"query": QUERY, "input": [*DOCUMENTS, BAD]},
    "/v1/score": {"queries": QUERY, "documents": [*DOCUMENTS, BAD]},
    "/api/v1/rerank": {"query": QUERY, "documents": [*DOCUMENTS, BAD]},
    "/api/v1/services/rerank/text-rerank/text-rerank": {
        "input": {"query": QUERY, "documents": [*DOCUMENTS, BAD]}
    },
    "/infinity/rerank": {"query": QUERY, "documents": [*DOCUMENTS, BAD]},
    "/sglang/v1/rerank": {"query": QUERY, "documents": [*DOCUMENTS, BAD]},
}


@pytest.mark.parametrize("path", REQUESTS)
def test_every_dialect_has_the_error_and_the_tokens(url: str, path: str) -> None:
    body = REQUESTS[path] | {"instruction": INSTRUCTION}
    refused = httpx.post(url + path, json=body, timeout=120)
    assert refused.status_code == 400
    assert "no_score" in refused.text

    skipped = httpx.post(url + path, json=body | {"on_error": "skip", "cache": "bypass"})
    assert skipped.status_code == 200, skipped.text
    answer = skipped.json()
    if isinstance(answer, dict):
        assert [error["code"] for error in answer["errors"]] == ["no_score"]
        assert answer["usage"]["completion_tokens"] > 30
        assert answer["usage"]["total_tokens"] == (
            answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
        )
    else:
        assert len(answer) >= 3


def test_a_deadline_is_a_deadline(url: str) -> None:
    documents = [DOCUMENTS[0], f"It is {ENDLESS}."]
    late = rerank(url, documents=documents, timeout_ms=700, cache="bypass")
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert rerank(url).status_code == 200


def test_the_model_says_how_it_scores(url: str) -> None:
    info = httpx.get(f"{url}/info").json()
    assert info["family"] == "erank"
    assert info["read_out"] == "generated 0..10"
    assert info["transform"] == "x / 10"
    assert info["limits"]["max_completion_tokens"] == 2048
    assert info["golden_pairs"] == 3


def test_written_tokens_are_counted(url: str) -> None:
    before = counted(url)
    answer = rerank(url, cache="bypass").json()
    after = counted(url)
    for name in ("rerank_completion_tokens_total", "rerank_engine_completion_tokens_total"):
        assert after[name] - before[name] == answer["usage"]["completion_tokens"]
