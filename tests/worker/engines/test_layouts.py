"""A checkpoint has its logits in every layout that hubs have: of config.json, weights, tokenizer,
template and processor.

transformers loads each layout. For vLLM, layouts differ in its configuration alone, which is built
for each. Two engines of vLLM are started, on folders that differ from gmr-tiny's own layout and
from each other in every choice at once; all other tests of vLLM serve gmr-tiny's own layout. So
each value of each choice goes through a real engine or, where it concerns the configuration alone,
is compared with the configuration of one that did.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from PIL import Image
from transformers import AutoTokenizer

from model_store.checkpoint import resolve
from model_store.families.gmr import MAX_PIXELS
from model_store.families.tokens import LiteralTokenizer
from model_store.golden import GoldenPair, Pixels, read_golden
from service.wire import Scored
from service.worker.engines.torch.engine import TorchEngine
from service.worker.golden_check import golden_drift
from tests.conftest import TINY
from tests.layouts import Layout, write_layout
from tests.worker.calls import as_call
from tests.worker.engines.conftest import Configure, Serve

LAYOUTS: dict[str, Layout] = {
    "a hub's of 2025": Layout("flat", "top", "mrope", sharded=True, template="json"),
    "flat, untied": Layout("flat", "no", "mrope"),
    "flat, untied by silence": Layout("flat", "not said", "mrope", names="new"),
    "flat, with what transformers 5 says of positions": Layout("flat", "top"),
    "nested, tied at the top alone": Layout(tied="top"),
    "nested, tied in the text alone": Layout(tied="text"),
    "nested, untied": Layout(tied="no", names="new"),
    "transformers 4.57's": Layout("nested of 2025", "both", "default", names="new"),
    "transformers 4.57's, tied in the text alone": Layout("nested of 2025", "text", "default"),
    "transformers 4.57's, untied": Layout(
        "nested of 2025", "no", "default", names="new", sharded=True
    ),
    "no architectures": Layout(architectures="none"),
    "two architectures": Layout(architectures="two"),
    "new names": Layout(names="new"),
    "float32": Layout(dtype="F32"),
    "float16": Layout(dtype="F16"),
    "a head beside tied embeddings": Layout(second_head=True),
    "vocab.json and merges.txt": Layout(tokenizer="parts"),
    "vocab.json, merges.txt, added_tokens.json": Layout(tokenizer="parts of 2024"),
    "a template in JSON": Layout(template="json"),
    "a template in the tokenizer's settings": Layout(template="in the tokenizer"),
    "no template": Layout(template="none"),
    "bounds as a size": Layout(processor="size"),
    "bounds in processor_config.json": Layout(processor="nested"),
    "bounds in both": Layout(processor="both"),
    "no processor": Layout(processor="none"),
}
ENGINES = {
    "as hubs have it": Layout(
        "flat", "top", "mrope", sharded=True, tokenizer="parts", template="json", second_head=True
    ),
    "as transformers 4.57 saves it": Layout(
        "nested of 2025",
        "no",
        "default",
        architectures="none",
        names="new",
        dtype="F32",
        template="none",
        processor="nested",
    ),
}
TOLERANCE = {"BF16": 1e-3, "F32": 1e-3, "F16": 0.02}
"""gmr-tiny's weights are in bf16: float32 holds them exactly, float16 rounds the smallest."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    named = LAYOUTS | ENGINES
    return {
        name: write_layout(root / f"layout-{number}", layout)
        for number, (name, layout) in enumerate(named.items())
    }


def expected_pairs(layout: Layout) -> list[GoldenPair]:
    """gmr-tiny's golden pairs, one a cell, with the logits that the layout's weights have."""
    return [replace(pair, logit=pair.logit * layout.factor) for pair in read_golden(TINY)[::2]]


@pytest.mark.parametrize("name", LAYOUTS)
async def test_transformers_reads_it(folders: dict[str, Path], name: str) -> None:
    layout = LAYOUTS[name]
    engine = TorchEngine(device="cpu", threads=1)
    (info,) = await engine.start(resolve(str(folders[name])))
    drift = await golden_drift(engine, info, expected_pairs(layout))
    await engine.close()

    assert drift < TOLERANCE[layout.dtype] * layout.factor
    assert info.dtype == "float32"
    assert info.images.max_pixels == (MAX_PIXELS if layout.processor == "none" else 50_176)


def picture_or_text(part: str | Pixels) -> str | Image.Image:
    return part if isinstance(part, str) else Image.fromarray(part)


@pytest.mark.parametrize("kind", ["parts", "parts of 2024"])
def test_ids_from_two_files_are_those_of_transformers(folders: dict[str, Path], kind: str) -> None:
    (name,) = [name for name, layout in LAYOUTS.items() if layout.tokenizer == kind]
    ours, original = LiteralTokenizer.load(folders[name]), LiteralTokenizer.load(TINY)
    theirs = AutoTokenizer.from_pretrained(folders[name])
    texts = [
        "",
        " how do I sort\n a list? ",
        "I'm 42, naïve\u0301 中文 \U0001f600\r\n\tyes no",
        "x" * 300,
    ]
    assert ours.controls == original.controls

    expected = [theirs(text)["input_ids"] for text in texts]
    assert ours.encode(texts) == original.encode(texts) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LAYOUTS | ENGINES if name != "no processor"])
def test_vllm_takes_it_for_the_same_network(
    vllm_configuration: Configure, folders: dict[str, Path], name: str
) -> None:
    layout = (LAYOUTS | ENGINES)[name]
    expected, found = vllm_configuration(TINY), vllm_configuration(folders[name])
    tied = not layout.untied

    assert found.pop("tied") == [tied, tied]
    assert expected.pop("tied") == [True, True]
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_gives_its_logits(
    folders: dict[str, Path], name: str, vllm_worker: Serve
) -> None:
    layout = ENGINES[name]
    worker = vllm_worker(folders[name])
    assert worker.info.golden_pairs == 0
    differences = []
    for pair in expected_pairs(layout):
        sides = [tuple(map(picture_or_text, side)) for side in (pair.query, pair.document)]
        call = as_call(pair.instruction, sides[0], [sides[1]])
        (scored,) = worker.ask(structs.replace(call, model=worker.info.model))
        assert isinstance(scored, Scored)
        differences.append(abs(scored.logit - pair.logit))
    assert max(differences) < TOLERANCE[layout.dtype] * layout.factor
