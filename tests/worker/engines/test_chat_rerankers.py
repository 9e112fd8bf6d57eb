"""Both engines give the scores of sentence-transformers' `CrossEncoder.predict` for folders that it
saved with a chat template; no setting names their family."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from sentence_transformers import CrossEncoder

from model_store.checkpoint import resolve
from model_store.synthetic import cells
from model_store.synthetic.examples import Side
from model_store.synthetic.pictures import fitted
from service.wire import ScoreCall, Scored, WorkerInfo
from service.worker.engines.torch.engine import TorchEngine
from tests.chat_rerankers import (
    IDENTITY,
    ZERANK_TEMPLATE,
    write_gmr,
    write_head,
    write_text,
)
from tests.conftest import CALM
from tests.processes import Gmr
from tests.worker.calls import as_call, verdicts
from tests.worker.engines.conftest import Serve

TOLERANCE, BETWEEN_ENGINES = 1e-4, 1e-3
CELLS = ("T-T", "I-T", "T-I", "I-I", "IT-IT")
PROMPT = "Find the document that answers"
TEXTS: list[Side] = [
    ("Sort the list in ascending order and return None.",),
    ("Berlin is the capital of Germany. " * 30,),
    ("  \u00e0 la carte, \u4e2d\u6587\n",),
    ("",),
]


@cache
def loaded(folder: Path) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


def theirs(
    folder: Path, instruction: str, query: Side, documents: Sequence[Side]
) -> tuple[list[float], list[float]]:
    """Raw scores and relevance scores of `predict`, one pair at a time in fp32."""
    model = loaded(folder)
    pairs = [(as_input(query), as_input(document)) for document in documents]
    prompt = instruction or None
    raw = model.predict(
        pairs,
        prompt=prompt,
        batch_size=1,
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )
    scores = model.predict(pairs, prompt=prompt, batch_size=1, show_progress_bar=False)
    return raw.tolist(), scores.tolist()


def as_input(side: Side) -> str | dict[str, list[object]]:
    """A side as sentence-transformers takes it: kinds of parts in their order."""
    if all(isinstance(part, str) for part in side):
        (text,) = side
        assert isinstance(text, str)
        return text
    parts: dict[str, list[object]] = {}
    for part in side:
        if isinstance(part, str):
            parts.setdefault("text", []).append(part)
        else:
            parts.setdefault("image", []).append(Picture.fromarray(np.asarray(fitted(part))))
    return parts


def calls(info: WorkerInfo) -> list[tuple[Side, list[Side], ScoreCall]]:
    """A question of each of some of the nine cells, with its documents and its call."""
    found = []
    for cell in CELLS:
        example = cells.sample(cell, Random(cell), "heldout", 2)
        documents = list(example.documents)
        found.append((example.query, documents, as_call(PROMPT, example.query, documents)))
    return found


def of_model(call: ScoreCall, info: WorkerInfo) -> ScoreCall:
    return ScoreCall(
        info.model, call.instruction, call.query, call.documents, call.images, truncate=True
    )


def expect_close(found: Sequence[object], expected: Sequence[float], tolerance: float) -> None:
    for pair, raw in zip(found, expected, strict=True):
        assert isinstance(pair, Scored)
        assert pair.logit == pytest.approx(raw, abs=tolerance)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gmr(tmp_path_factory.mktemp("models") / "of-images", prompt=PROMPT)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts whose score is the logit of one label, without a sigmoid."""
    return write_text(
        tmp_path_factory.mktemp("models") / "of-texts",
        ZERANK_TEMPLATE,
        labels=("yes",),
        activation=IDENTITY,
    )


async def test_torch_scores_images_and_texts_as_predict_does(images: Path) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(images)))
    assert info.family == "sentence-transformers"
    assert info.default_instruction == PROMPT
    assert info.probability.name == "sigmoid"
    assert info.read_out == "yes - no"
    assert info.cacheable_side == "query"
    for query, documents, call in calls(info):
        found = await verdicts(engine, of_model(call, info))
        raw, scores = theirs(images, "", query, documents)  # its own default prompt
        expect_close(found, raw, TOLERANCE)
        for logit, score in zip(raw, scores, strict=True):
            assert info.probability(logit) == pytest.approx(score, abs=1e-6)
    await engine.close()


async def test_torch_scores_texts_by_one_label_as_predict_does(texts: Path) -> None:
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(texts)))
    assert info.images is None
    assert not info.takes_instruction
    assert info.read_out == "yes"
    assert info.probability.name == "identity"
    found = await verdicts(engine, of_model(as_call("", ("a query",), TEXTS), info))
    raw, scores = theirs(texts, "", ("a query",), TEXTS)
    assert raw == scores
    expect_close(found, raw, TOLERANCE)
    assert max(raw) - min(raw) > 0.1
    assert all(math.isfinite(score) for score in raw)
    await engine.close()


async def test_torch_scores_texts_by_a_head_as_predict_does(tmp_path: Path) -> None:
    folder = write_head(tmp_path / "of-a-head", activation=None)
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folder)))
    assert info.family == "sentence-transformers"
    assert info.read_out == "score head"
    for instruction in ("", PROMPT):
        call = as_call(instruction, ("a query",), TEXTS)
        found = await verdicts(engine, of_model(call, info))
        raw, scores = theirs(folder, instruction, ("a query",), TEXTS)
        expect_close(found, raw, TOLERANCE)
        assert [info.probability(logit) for logit in raw] == pytest.approx(scores, abs=1e-6)
    await engine.close()


@pytest.mark.slow
def test_vllm_scores_images_and_texts_as_predict_does(images: Path, vllm_worker: Serve) -> None:
    worker = vllm_worker(images)
    assert worker.info.family == "sentence-transformers"
    for query, documents, call in calls(worker.info):
        raw, _ = theirs(images, "", query, documents)
        expect_close(worker.ask(of_model(call, worker.info)), raw, BETWEEN_ENGINES)


@pytest.mark.slow
def test_a_service_of_a_template_that_does_not_end_ends_with_one_line(tmp_path: Path) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    folder = write_text(tmp_path / "endless", loop)
    with Gmr("serve", "--model", str(folder), log=tmp_path / "log", **CALM) as service:
        assert service.wait() == 1
        lines = [json.loads(line) for line in service.said().splitlines()]
    assert [line["level"] for line in lines].count("error") == 1
    assert lines[-1]["message"] == (
        "endless: chat_template.jinja cannot be rendered: it does not end within 2 seconds of"
        " processor time."
    )
