"""A workload is reproducible, and has the sizes of its description."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from statistics import median

import pytest
from PIL import Image
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.families.gmr import Gmr
from model_store.families.tokens import LiteralTokenizer
from model_store.manifest import digest_files
from service.bench.generated import generate_checkpoint
from service.bench.workloads import (
    DESCRIPTIONS,
    DOCUMENT_TOKENS,
    INSTRUCTION,
    QUERY_TOKENS,
    WORKLOADS,
    Part,
    Request,
    make_request,
)
from tests.conftest import TINY


@pytest.fixture(scope="module")
def tokenizer() -> LiteralTokenizer:
    return LiteralTokenizer.load(TINY)


def length(tokenizer: LiteralTokenizer, part: Part) -> int:
    assert isinstance(part, str)
    return len(tokenizer.encode([part])[0])


def content(request: Request) -> list[str | tuple[tuple[int, int], bytes]]:
    return [
        part if isinstance(part, str) else (part.size, part.tobytes())
        for part in (request.query, *request.documents)
    ]


@pytest.mark.parametrize("letter", list(WORKLOADS))
def test_the_same_seed_gives_the_same_request(letter: str) -> None:
    first, second = (make_request(letter, 3, 5, LiteralTokenizer.load(TINY)) for _ in range(2))
    assert content(first) == content(second)
    assert first.body() == second.body()


@pytest.mark.parametrize("letter", list(WORKLOADS))
def test_another_seed_gives_another_request(tokenizer: LiteralTokenizer, letter: str) -> None:
    first, second = (make_request(letter, 3, seed, tokenizer) for seed in (1, 2))
    assert not set(content(first)) & set(content(second))


@pytest.mark.parametrize("letter", list(WORKLOADS))
def test_fewer_documents_are_the_first_of_more(tokenizer: LiteralTokenizer, letter: str) -> None:
    few, many = (make_request(letter, count, 1, tokenizer) for count in (2, 6))
    assert content(few) == content(many)[:3]


@pytest.mark.parametrize("letter", list(WORKLOADS))
def test_no_two_documents_are_equal(tokenizer: LiteralTokenizer, letter: str) -> None:
    documents = content(make_request(letter, 20, 1, tokenizer))[1:]
    assert len(set(documents)) == len(documents) == 20


@pytest.mark.parametrize("letter", ["T", "L", "C"])
def test_the_query_side_of_a_prompt_has_three_hundred_tokens(
    tokenizer: LiteralTokenizer, letter: str
) -> None:
    for seed in range(10):
        query = make_request(letter, 1, seed, tokenizer).query
        assert isinstance(query, str)
        prefix = Gmr(tokenizer).question((INSTRUCTION,), (query,))
        assert abs(len(prefix.ids) - QUERY_TOKENS) <= 15


@pytest.mark.parametrize("letter", ["T", "Q"])
def test_documents_have_the_stated_tokens(tokenizer: LiteralTokenizer, letter: str) -> None:
    for document in make_request(letter, 30, 1, tokenizer).documents:
        assert DOCUMENT_TOKENS - 2 <= length(tokenizer, document) <= DOCUMENT_TOKENS


def test_long_tailed_documents_have_a_long_tail(tokenizer: LiteralTokenizer) -> None:
    documents = make_request("L", 300, 1, tokenizer).documents
    lengths = [length(tokenizer, document) for document in documents]
    assert 14 <= min(lengths) < 30
    assert 60 < median(lengths) < 110
    assert 480 < max(lengths) <= 512


@pytest.mark.parametrize(
    ("letter", "queries", "documents"), [("Q", (448, 448), None), ("C", None, (280, 280))]
)
def test_pictures_have_the_stated_sides(
    tokenizer: LiteralTokenizer,
    letter: str,
    queries: tuple[int, int] | None,
    documents: tuple[int, int] | None,
) -> None:
    request = make_request(letter, 4, 1, tokenizer)
    assert getattr(request.query, "size", None) == queries
    assert {getattr(document, "size", None) for document in request.documents} == {documents}


def test_every_workload_is_described() -> None:
    assert list(DESCRIPTIONS) == list(WORKLOADS) == ["T", "Q", "L", "C"]


def test_a_body_is_json_past_the_cache_with_decodable_pictures(tokenizer: LiteralTokenizer) -> None:
    for letter in WORKLOADS:
        request = make_request(letter, 2, 1, tokenizer)
        body = json.loads(json.dumps(request.body()))
        assert body["cache"] == "bypass"
        assert body["instruction"] == INSTRUCTION
        assert len(body["documents"]) == 2

        items = (body["query"], *body["documents"])
        parts = (request.query, *request.documents)
        for item, part in zip(items, parts, strict=True):
            if isinstance(part, str):
                assert item == part
                continue
            image = Image.open(io.BytesIO(base64.b64decode(item["image"], validate=True)))
            assert image.size == part.size


@pytest.mark.slow
def test_the_generated_checkpoint_has_about_forty_million_parameters(tmp_path: Path) -> None:
    folder = tmp_path / "generated"
    generate_checkpoint(TINY, folder)
    generate_checkpoint(TINY, tmp_path / "again")
    weights = ["model.safetensors"]

    assert digest_files(folder, weights) == digest_files(tmp_path / "again", weights)

    assert AutoConfig.from_pretrained(folder).model_type == "qwen2_5_vl"

    network, notes = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert 30e6 <= network.num_parameters() <= 60e6
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]

    checkpoint = resolve(str(folder))
    assert checkpoint.family.label_ids == resolve("gmr-tiny").family.label_ids
    assert checkpoint.manifest.pixels is not None
    assert checkpoint.manifest.pixels.max_pixels == 256 * 28 * 28
