"""The arithmetic that is counted is the arithmetic that the network does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import resolve
from model_store.families.prompt import Image, Prompt
from model_store.families.tokens import LiteralTokenizer
from model_store.networks.qwen2_5_vl_images import grid, patches
from service.bench.comparison.roofline import Network, work
from service.bench.workloads import INSTRUCTION, make_request
from tests.conftest import TINY

LAYERS, HEADS, SIZE = 4, 4, 64
TOKENIZER = LiteralTokenizer.load(TINY)
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.convolution)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(TINY)


@pytest.fixture(scope="module")
def loaded() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32).eval()


def products(counter: FlopCounterMode) -> int:
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if operation in PRODUCTS)


@torch.inference_mode()
def test_a_text_s_products_are_those_that_torch_counts(
    network: Network, loaded: Qwen2_5_VLForConditionalGeneration
) -> None:
    ids = torch.arange(50)[None]
    with FlopCounterMode(display=False) as counter:
        loaded.model.language_model(input_ids=ids)
    attended = sum(range(1, 51))
    assert network.text(50, []) == products(counter) + 4 * LAYERS * HEADS * SIZE * attended


@torch.inference_mode()
def test_a_picture_s_products_are_those_that_torch_counts(
    network: Network, loaded: Qwen2_5_VLForConditionalGeneration
) -> None:
    image = Image(b"", 224, 168)
    pixels = torch.from_numpy(patches(np.zeros((168, 224, 3), np.uint8)))
    with FlopCounterMode(display=False) as counter:
        loaded.model.visual(pixels, grid_thw=torch.tensor([grid(image)]))
    count, hidden = 16 * 12, 128
    attended = 2 * count + 2 * 64  # two full layers, two with windows of 8 x 8 patches
    assert network.picture(image) == products(counter) + 4 * hidden * count * attended


def test_a_prefix_is_counted_once(network: Network) -> None:
    apart = sum(network.text(30, [tokens]) for tokens in (10, 20))
    assert apart - network.text(30, [10, 20]) == network.text(30, [])
    assert network.text(30, [10]) == network.text(40, []) == network.text(0, [40])


def test_a_flat_config_is_read_as_a_nested_one(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flat")
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    flat = config.pop("text_config") | config
    (folder / "config.json").write_text(json.dumps(flat), encoding="utf-8")
    assert Network(folder).text(30, [10, 20]) == network.text(30, [10, 20])


@pytest.mark.parametrize("letter", ["T", "Q", "C"])
def test_a_request_needs_its_unique_tokens_and_pictures(network: Network, letter: str) -> None:
    checkpoint = resolve("gmr-tiny")
    request = make_request(letter, 3, 1, TOKENIZER)
    one = replace(request, documents=request.documents[:1])
    shown = Image(b"", 224, 224)
    items = [
        part if isinstance(part, str) else shown for part in (request.query, *request.documents)
    ]
    prompts = checkpoint.family.render((INSTRUCTION,), (items[0],), [(item,) for item in items[1:]])
    prefix, *suffixes = (
        len(prompts[0].prefix.ids),
        *(len(prompt.suffix.ids) for prompt in prompts if isinstance(prompt, Prompt)),
    )
    pictures = {"T": 0, "Q": 1, "C": 3}[letter]
    needed = work([request], checkpoint, network)
    assert needed.tokens == prefix + sum(suffixes)
    assert needed.operations == network.text(prefix, suffixes) + pictures * network.picture(shown)
    twice = work([request, one], checkpoint, network)
    assert twice.tokens == needed.tokens + work([one], checkpoint, network).tokens


def test_what_was_asked_about_before_needs_nothing(network: Network) -> None:
    checkpoint = resolve("gmr-tiny")
    request = make_request("T", 4, 1, TOKENIZER)
    new = replace(request, documents=request.documents[2:])
    assert work([replace(request, repeated=2)], checkpoint, network) == work(
        [new], checkpoint, network
    )
