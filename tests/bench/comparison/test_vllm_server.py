"""vLLM's own server computes our prompts, and is sent the requests that our gateway is sent."""

from __future__ import annotations

import base64
import io
import json
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image as Picture

from model_store.checkpoint import resolve
from model_store.families.family import ImageRules
from model_store.families.tokens import LiteralTokenizer
from model_store.folders.chat_template import pair_template
from service.bench.comparison.vllm_server import (
    command,
    model_size,
    read_logits,
    rerank_body,
    score_bodies,
)
from service.bench.workloads import INSTRUCTION, make_request
from tests.bench.test_plan import plan
from tests.conftest import TINY

CHECKPOINT = resolve("gmr-tiny")
RULES = ImageRules(28, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28, token_id=0)
ANY_SIZE = ImageRules(28, min_pixels=1, max_pixels=10**6, token_id=0)
TOKENIZER = LiteralTokenizer.load(TINY)


def test_a_request_goes_out_whole_or_in_parts() -> None:
    request = make_request("C", 5, 1, TOKENIZER)
    whole = json.loads(rerank_body(request))
    parts = list(map(json.loads, score_bodies(request, ANY_SIZE, 2)))

    assert [len(part["documents"]) for part in parts] == [2, 2, 1]
    assert list(chain.from_iterable(part["documents"] for part in parts)) == whole["documents"]
    assert {part["queries"] for part in parts} == {whole["query"]} == {request.query}

    for body in (whole, *parts):
        assert body["instruction"] == INSTRUCTION
        assert not body["use_activation"]


def pixels(item: dict[str, list[dict[str, dict[str, str]]]]) -> Picture.Image:
    url = item["content"][0]["image_url"]["url"]
    return Picture.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_a_tuned_client_sends_pictures_of_the_size_the_model_reads_without_loss() -> None:
    request = make_request("C", 2, 1, TOKENIZER)
    sent = json.loads(rerank_body(request))["documents"]
    (body,) = score_bodies(request, RULES, 25)
    for small, large in zip(json.loads(body)["documents"], sent, strict=True):
        assert small["content"][0]["image_url"]["url"].startswith("data:image/png;")
        expected = pixels(large).convert("RGB").resize((224, 224), Picture.Resampling.BICUBIC)
        assert pixels(small).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((224, 224), (224, 224)), ((448, 448), (224, 224)), ((600, 150), (420, 84))],
)
def test_a_picture_gets_the_size_that_the_processor_gives_it(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert model_size(size, RULES) == expected


def test_logits_are_read_in_the_order_of_documents() -> None:
    rerank = {
        "results": [{"index": 1, "relevance_score": 3.5}, {"index": 0, "relevance_score": -1.0}]
    }
    first = {"data": [{"index": 0, "score": 1.0}, {"index": 1, "score": 0.0}]}
    second = {"data": [{"index": 0, "score": -2.0}]}

    assert read_logits([json.dumps(rerank).encode()]) == [-1.0, 3.5]
    assert read_logits([json.dumps(body).encode() for body in (first, second)]) == [1.0, 0.0, -2.0]


def test_only_the_tuned_server_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_ENGINE_ENFORCE_EAGER", "true")
    template = tmp_path / "score.jinja"
    plain = command(plan(), CHECKPOINT, "8000", template, tuned=False)
    tuned = command(plan(), CHECKPOINT, "8000", template, tuned=True)

    assert template.read_text(encoding="utf-8") == pair_template(CHECKPOINT.manifest)

    added = {"--block-size=32", "--max-num-batched-tokens=2048", "--enforce-eager"}
    added |= {"--enable-prefix-caching", "--disable-uvicorn-access-log"}
    assert set(tuned) - set(plain) == added
    assert set(plain) <= set(tuned)
    assert "--dtype=float32" in plain
