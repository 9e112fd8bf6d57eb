"""The arithmetic that is counted is the arithmetic that the network does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration

from model_store.checkpoint import Checkpoint, resolve
from model_store.families.prompt import Image, Prompt
from model_store.families.tokens import LiteralTokenizer
from model_store.networks.qwen2_5_vl_images import grid, patches
from model_store.sizing.network import NetworkCost, network_cost
from service.bench.comparison.roofline import (
    Work,
    image_operations,
    least_work,
    text_operations,
)
from service.bench.workloads import INSTRUCTION, Request, make_request
from tests.conftest import TINY

LAYERS, HEADS, SIZE = 4, 4, 64
TOKENIZER = LiteralTokenizer.load(TINY)
PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.convolution)


@pytest.fixture(scope="module")
def network() -> NetworkCost:
    return network_cost(str(TINY))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return resolve("gmr-tiny")


@pytest.fixture(scope="module")
def loaded() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32).eval()


def products(counter: FlopCounterMode) -> int:
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if operation in PRODUCTS)


@torch.inference_mode()
def test_a_text_s_products_are_those_that_torch_counts(
    network: NetworkCost, loaded: Qwen2_5_VLForConditionalGeneration
) -> None:
    ids = torch.arange(50)[None]
    with FlopCounterMode(display=False) as counter:
        loaded.model.language_model(input_ids=ids)

    attention = 4 * LAYERS * HEADS * SIZE * sum(range(1, 51))
    assert text_operations(network, 50, []) == products(counter) + attention


@torch.inference_mode()
def test_a_picture_s_products_are_those_that_torch_counts(
    network: NetworkCost, checkpoint: Checkpoint, loaded: Qwen2_5_VLForConditionalGeneration
) -> None:
    image = Image(b"", 224, 168)
    pixels = torch.from_numpy(patches(np.zeros((168, 224, 3), np.uint8)))
    with FlopCounterMode(display=False) as counter:
        loaded.model.visual(pixels, grid_thw=torch.tensor([grid(image)]))

    count, hidden = 16 * 12, 128
    attended = 2 * count + 2 * 64  # two full layers, two with windows of 8 x 8 patches
    rules = checkpoint.family.images
    assert rules is not None

    attention = 4 * hidden * count * attended
    assert image_operations(network, rules, image) == products(counter) + attention


def test_a_prefix_is_counted_once(network: NetworkCost) -> None:
    apart = sum(text_operations(network, 30, [tokens]) for tokens in (10, 20))
    assert apart - text_operations(network, 30, [10, 20]) == text_operations(network, 30, [])
    assert (
        text_operations(network, 30, [10])
        == text_operations(network, 40, [])
        == text_operations(network, 0, [40])
    )


def test_a_flat_config_is_read_as_a_nested_one(
    network: NetworkCost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flat")
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    flat = config.pop("text_config") | config
    (folder / "config.json").write_text(json.dumps(flat), encoding="utf-8")

    assert text_operations(network_cost(str(folder)), 30, [10, 20]) == text_operations(
        network, 30, [10, 20]
    )


@pytest.mark.parametrize(("letter", "images"), [("T", 0), ("Q", 1), ("C", 3)])
def test_a_request_needs_its_unique_tokens_and_pictures(
    network: NetworkCost, checkpoint: Checkpoint, letter: str, images: int
) -> None:
    request = make_request(letter, 3, 1, TOKENIZER)
    prefix, suffixes = lengths_of(request, checkpoint)
    rules = checkpoint.family.images
    assert rules is not None

    needed = least_work([request], checkpoint, network)
    of_images = images * image_operations(network, rules, SHOWN)
    assert needed.tokens == prefix + sum(suffixes)
    assert needed.operations == text_operations(network, prefix, suffixes) + of_images

    one = replace(request, documents=request.documents[:1])
    twice = least_work([request, one], checkpoint, network)
    assert twice.tokens == needed.tokens + least_work([one], checkpoint, network).tokens


SHOWN = Image(b"", 224, 224)
"""The size in which gmr-tiny reads the images of all workloads."""


def lengths_of(request: Request, checkpoint: Checkpoint) -> tuple[int, list[int]]:
    """Tokens of a request's prefix and of each document's suffix."""
    query = request.query if isinstance(request.query, str) else SHOWN
    documents = [part if isinstance(part, str) else SHOWN for part in request.documents]
    prompts = checkpoint.family.render((INSTRUCTION,), (query,), [(item,) for item in documents])

    first = prompts[0]
    assert isinstance(first, Prompt)
    suffixes = [len(prompt.suffix.ids) for prompt in prompts if isinstance(prompt, Prompt)]
    return len(first.prefix.ids), suffixes


def test_documents_of_an_earlier_request_need_nothing(
    network: NetworkCost, checkpoint: Checkpoint
) -> None:
    request = make_request("T", 4, 1, TOKENIZER)
    new = replace(request, documents=request.documents[2:])
    expected: Work = least_work([new], checkpoint, network)
    assert least_work([replace(request, repeated=2)], checkpoint, network) == expected
