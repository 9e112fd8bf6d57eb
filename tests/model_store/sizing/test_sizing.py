"""The arithmetic against PyTorch's count and the paper's; the page against the command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLVisionModel,
)
from typer.testing import CliRunner

from model_store.families.catalogue import published_configs
from model_store.networks.catalogue import of_config
from model_store.sizing.network import ImagesNotRead, UnknownNetwork, network_cost
from model_store.sizing.plan import GPUS, Assumptions, Load, plan
from service.cli.main import app
from tests.conftest import TINY
from tests.qwen2_vl import write_qwen2_vl
from tests.qwen3_vl import TEXT, VISION

PAGE = Path("docs/sizing.md")


def size(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("gmr-3b", 3.75),
        ("gmr-7b", 8.29),
        ("jina-reranker-m0", 2.21),
        ("monoqwen2-vl-v0.1", 2.21),
    ],
)
def test_parameters_are_those_of_table_4(model: str, billions: float) -> None:
    assert network_cost(model).parameters / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("qwen3-reranker-0.6b", 0.6),
        ("qwen3-reranker-4b", 4.0),
        ("qwen3-reranker-8b", 8.2),
        ("zerank-2", 4.0),
        ("zerank-1-small", 1.7),
        ("mxbai-rerank-base-v2", 0.5),
        ("mxbai-rerank-large-v2", 1.5),
        ("bge-reranker-v2-gemma", 2.5),
        ("qwen3-vl-reranker-2b", 2.1),
        ("qwen3-vl-reranker-8b", 8.8),
    ],
)
def test_parameters_are_those_that_the_models_are_named_by(model: str, billions: float) -> None:
    assert network_cost(model).parameters / 1e9 == pytest.approx(billions, abs=0.05)


@pytest.mark.parametrize("model", published_configs())
def test_parameters_are_those_that_transformers_makes(model: str) -> None:
    network = network_on_meta(published_configs()[model])
    # norms and biases are not counted
    assert network_cost(model).parameters == pytest.approx(network.num_parameters(), rel=0.001)


def network_on_meta(published: Any) -> PreTrainedModel:
    model_class = of_config("published", published).model_class()
    with torch.device("meta"):
        network: PreTrainedModel = model_class(AutoConfig.for_model(**published))
    network.tie_weights()
    return network


@pytest.fixture(scope="module")
def tiny() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(
        TINY, dtype=torch.float32, attn_implementation="eager"
    )


def test_parameters_are_those_of_a_folder(tiny: Qwen2_5_VLForConditionalGeneration) -> None:
    counted = network_cost(str(TINY)).parameters
    assert counted == pytest.approx(tiny.num_parameters(), rel=0.02)


@pytest.mark.parametrize("tokens", [64, 300])
def test_operations_are_those_that_are_executed(
    tiny: Qwen2_5_VLForConditionalGeneration, tokens: int
) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.model.language_model(
            input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False
        )

    counted = network_cost(str(TINY)).operations(tokens, 1, 0)
    causal = counted + 4 * 4 * 256 * tokens**2 / 2  # PyTorch counts what the mask hides, too
    assert counter.get_total_flops() == pytest.approx(causal, rel=0.01)


def test_operations_of_a_text_network_are_those_that_are_executed(tmp_path: Path) -> None:
    config = Qwen3Config(
        architectures=["Qwen3ForCausalLM"],
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        attn_implementation="eager",
    )
    config.save_pretrained(tmp_path)
    tokens = 64
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ids = torch.ones(1, tokens, dtype=torch.long)
        Qwen3ForCausalLM(config).model(input_ids=ids, use_cache=False)

    counted = network_cost(str(tmp_path)).operations(tokens, 1, 0)
    causal = counted + 4 * 3 * 4 * 64 * tokens**2 / 2
    assert counter.get_total_flops() == pytest.approx(causal, rel=0.01)


def test_an_images_operations_are_those_that_are_executed(
    tiny: Qwen2_5_VLForConditionalGeneration,
) -> None:
    side = 16
    patches = torch.zeros(side * side, 3 * 2 * 14 * 14)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.model.visual(patches, grid_thw=torch.tensor([[1, side, side]]))

    counted = network_cost(str(TINY)).tower().operations(side * side // 4)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_operations_of_a_tower_with_a_deepstack_are_those_that_are_executed(
    tmp_path: Path,
) -> None:
    vision = VISION | {"hidden_size": 128, "depth": 4, "deepstack_visual_indexes": [0, 1, 2]}
    config = Qwen3VLConfig(text_config=TEXT, vision_config=vision, attn_implementation="eager")
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    config.save_pretrained(tmp_path)
    side = 16
    tower = Qwen3VLVisionModel(config.vision_config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(side * side, 3 * 2 * 16 * 16), grid_thw=torch.tensor([[1, side, side]]))

    counted = network_cost(str(tmp_path)).tower().operations(side * side // 4)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


def test_operations_of_a_tower_with_full_attention_are_those_that_are_executed(
    tmp_path: Path,
) -> None:
    write_qwen2_vl(tmp_path)
    side = 16
    config = Qwen2VLConfig.from_pretrained(tmp_path, attn_implementation="eager")
    tower = Qwen2VLForConditionalGeneration(config).float().model.visual
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(torch.zeros(side * side, 3 * 2 * 14 * 14), torch.tensor([[1, side, side]]))

    counted = network_cost(str(tmp_path)).tower().operations(side * side // 4)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)


@given(
    requests=st.floats(0.01, 1e4),
    documents=st.integers(1, 1000),
    tokens=st.integers(1, 3200),
    cached=st.floats(0, 0.99),
)
def test_more_work_never_needs_less(
    requests: float, documents: int, tokens: int, cached: float
) -> None:
    network = network_cost("gmr-3b")

    def workers(load: Load) -> int:
        return plan(network, GPUS["h100"], load, Assumptions()).workers

    fewest = workers(Load(requests, documents, 300, tokens, 64, cached))
    assert fewest <= workers(Load(2 * requests, documents, 300, tokens, 64, cached))
    assert fewest <= workers(Load(requests, documents, 300, tokens + 100, 64, cached))
    assert fewest <= workers(Load(requests, documents, 300, tokens, 128, cached))
    assert fewest <= workers(Load(requests, documents, 300, tokens, 64, cached / 2))


@given(requests=st.floats(0.1, 1e3), cached=st.floats(0, 0.9), share=st.integers(1, 4))
def test_the_cost_is_that_of_all_gpus_that_are_ordered(
    requests: float, cached: float, share: int
) -> None:
    load = Load(requests=requests, cached=cached)
    fleet = plan(
        network_cost("gmr-3b"), GPUS["l4"], load, Assumptions(), workers_per_gpu=share, price=2.5
    )
    hours = fleet.gpus + fleet.spare
    assert fleet.price_an_hour == pytest.approx(2.5 * hours)
    assert fleet.cost == pytest.approx(2.5 * hours / (requests * 100 * 3600) * 1e6)


def test_a_small_load_pays_for_its_whole_fleet() -> None:
    assert "cost       11.11 for a million pairs: 4 GPUs at 4.00 an hour" in size(
        "gmr-3b", "--gpu", "l4", "--price", "1"
    )


def test_the_bytes_of_kept_documents_and_of_their_images() -> None:
    small, large = network_cost("gmr-3b"), network_cost("qwen3-vl-reranker-8b")
    assert (small.kv_bytes, large.kv_bytes) == (36_864, 147_456)
    assert (small.image_bytes, large.image_bytes) == (4_096, 32_768)  # with a deepstack of three
    assert small.kept_bytes(1_000, 130) == 1.5 * 1_000 * 128 * 36_864
    assert small.kept_bytes(1_000, 130, block=32) == small.kept_bytes(1_000, 130)

    with pytest.raises(ImagesNotRead):
        _ = network_cost("qwen3-reranker-8b").image_bytes


def test_a_measurement_replaces_the_arithmetic() -> None:
    fleet = json.loads(
        size("--pairs-per-second", "100", "--requests", "6", "--price", "3.6", "--json")
    )["fleet"]
    # 600 pairs/s at 60 of each worker's 100
    assert (fleet["pairs_per_second"], fleet["workers"]) == (100, 10)
    # 11 GPUs with the spare one, for 600 pairs/s
    assert fleet["cost"] == pytest.approx(11 * 3.6 / 3600 / 600 * 1e6)
    assert "as measured" in size("--pairs-per-second", "100")


@given(st.integers(1, 8), st.sampled_from(["gmr-3b", "gmr-7b", "qwen3-reranker-0.6b"]))
def test_workers_that_share_a_gpu_hide_python_and_have_its_memory_once(
    count: int, model: str
) -> None:
    """The GPU is never more than busy, and a worker never more than alone."""
    network, gpu, load, assumed = network_cost(model), GPUS["b200"], Load(20), Assumptions()
    one = plan(network, gpu, load, assumed)
    several = plan(network, gpu, load, assumed, workers_per_gpu=count)
    no_python = plan(network, gpu, load, Assumptions(pair_seconds=0))
    least = min(count * one.pairs_per_second, no_python.pairs_per_second)
    assert several.pairs_per_second == pytest.approx(least)
    assert several.request_seconds == pytest.approx(one.request_seconds)
    assert several.workers == several.gpus * count <= one.workers * count

    beside_cache = (several.memory.weights + several.memory.step + several.memory.reserve) * count
    kept = count * several.memory.kv_tokens * network.kv_bytes
    assert beside_cache + kept <= gpu.memory * 1e9


def test_documents_that_are_kept_are_told_with_the_room_for_them() -> None:
    arguments = ("jina-reranker-m0", "--keep-documents", "1000", "--json")
    fleet = json.loads(size(*arguments))["fleet"]
    network = network_cost("jina-reranker-m0")
    assert fleet["kept"]["bytes"] == network.kept_bytes(1000, 130)
    room = fleet["kept"]["worker_documents"]
    cache = fleet["memory"]["kv_tokens"] * network.kv_bytes
    assert network.kept_bytes(room, 130) <= cache < network.kept_bytes(room + 2, 130)
    shorter = size("jina-reranker-m0", "--keep-documents", "9", "--document-tokens", "15")
    assert "9 documents take 0.0 GB of KV cache; the workers have room for 0" in shorter


@pytest.mark.parametrize(
    ("arguments", "sentence", "exit_code"),
    [
        (["--gpu", "abacus"], "--gpu is one of b200", 2),
        (["elsewhere"], "elsewhere is no folder with a config.json, nor one of gmr-3b", 1),
        (["--documents", "0"], "'--documents'", 2),
        (["--image-pixels", "99999999"], "'--image-pixels'", 2),
        (
            ["qwen3-reranker-4b", "--image-pixels", "200704"],
            "qwen3-reranker-4b reads text only: no load with images fits it.",
            2,
        ),
    ],
)
def test_a_command_line_without_sense_is_refused(
    arguments: list[str], sentence: str, exit_code: int
) -> None:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == exit_code
    assert sentence in result.output


def test_a_plan_with_images_on_a_text_network_is_refused() -> None:
    with pytest.raises(ImagesNotRead, match="reads text only"):
        plan(network_cost("qwen3-reranker-8b"), GPUS["h100"], Load(image_tokens=64), Assumptions())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no JSON object"),
        ("{}", "can be served"),
        ('{"model_type": "t5"}', "can be served"),
        ('{"model_type": "bert"}', "is no causal decoder"),
        ('{"model_type": "qwen2_5_vl", "vision_config": {"patch_size": 16}}', "patch_size"),
        ('{"model_type": "qwen2_5_vl", "vision_config": {"window_size": 0}}', "window_size"),
        ('{"model_type": "qwen2_5_vl", "vision_config": {"fullatt_block_indexes": 4}}', "fullatt"),
        ('{"model_type": "qwen3", "num_hidden_layers": "28"}', "num_hidden_layers is '28'"),
    ],
)
def test_a_folder_of_another_network_is_refused(
    tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UnknownNetwork, match=sentence):
        network_cost(str(tmp_path))


def test_the_page_shows_what_the_command_prints() -> None:
    page = PAGE.read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 8

    for block in blocks:
        for example in re.split(r"(?=^\$ gmr size )", block, flags=re.MULTILINE):
            command, _, output = example.partition("\n")
            if command:
                assert output == size(*command.split()[3:]), command
