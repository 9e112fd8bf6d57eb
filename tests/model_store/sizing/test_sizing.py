"""The arithmetic against what PyTorch executes and the paper's counts; the page against the
command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLForConditionalGeneration as Network
from typer.testing import CliRunner

from model_store.sizing.network import SHAPES, BadShape, shape_of
from model_store.sizing.plan import GPUS, Assumed, Load, plan
from service.cli.main import app
from tests.conftest import TINY

PAGE = Path("docs/sizing.md")


def size(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(("model", "billions"), [("gmr-3b", 3.75), ("gmr-7b", 8.29)])
def test_parameters_are_those_of_table_4(model: str, billions: float) -> None:
    assert SHAPES[model].parameters / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.fixture(scope="module")
def tiny() -> Network:
    return Network.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager")


def test_parameters_are_those_of_a_real_network(tiny: Network) -> None:
    # norms and biases are not counted
    assert shape_of(str(TINY)).parameters == pytest.approx(tiny.num_parameters(), rel=0.02)


@pytest.mark.parametrize("tokens", [64, 300])
def test_operations_are_those_that_are_executed(tiny: Network, tokens: int) -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.model.language_model(
            input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False
        )
    counted = shape_of(str(TINY)).operations(tokens, 1, 0)
    causal = counted + 4 * 4 * 256 * tokens**2 / 2  # PyTorch counts what the mask hides, too
    assert counter.get_total_flops() == pytest.approx(causal, rel=0.01)


def test_an_images_operations_are_those_that_are_executed(tiny: Network) -> None:
    side = 16
    patches = torch.zeros(side * side, 3 * 2 * 14 * 14)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tiny.model.visual(patches, grid_thw=torch.tensor([[1, side, side]]))
    shape = shape_of(str(TINY))
    assert counter.get_total_flops() == pytest.approx(
        shape.vision.operations(side * side, shape.width), rel=0.01
    )


@given(
    requests=st.floats(0.01, 1e4),
    documents=st.integers(1, 1000),
    tokens=st.integers(1, 3200),
    cached=st.floats(0, 0.99),
)
def test_more_work_never_needs_less(
    requests: float, documents: int, tokens: int, cached: float
) -> None:
    def workers(load: Load) -> int:
        return plan(SHAPES["gmr-3b"], GPUS["h100"], load, Assumed()).workers

    asked = workers(Load(requests, documents, 300, tokens, 64, cached))
    assert asked <= workers(Load(2 * requests, documents, 300, tokens, 64, cached))
    assert asked <= workers(Load(requests, documents, 300, tokens + 100, 64, cached))
    assert asked <= workers(Load(requests, documents, 300, tokens, 128, cached))
    assert asked <= workers(Load(requests, documents, 300, tokens, 64, cached / 2))


def test_a_measurement_replaces_the_arithmetic() -> None:
    fleet = json.loads(
        size("--pairs-per-second", "100", "--requests", "6", "--price", "3.6", "--json")
    )["fleet"]
    # 600 pairs/s at 60 of each worker's 100
    assert (fleet["pairs_per_second"], fleet["workers"]) == (100, 10)
    assert fleet["cost"] == pytest.approx(3.6 / 3600 / 60 * 1e6)
    assert "as measured" in size("--pairs-per-second", "100")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--gpu", "abacus"], "--gpu is one of b200"),
        (["elsewhere"], "elsewhere is neither gmr-3b nor gmr-7b nor a folder"),
        (["--documents", "0"], "'--documents'"),
        (["--image-pixels", "99999999"], "'--image-pixels'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["size", *arguments])
    assert result.exit_code == (1 if arguments == ["elsewhere"] else 2)
    assert sentence in result.output


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"vision_config": {"patch_size": 14}}', "[" * 100_000]
)
def test_another_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BadShape, match=r"does not describe a Qwen2\.5-VL network"):
        shape_of(str(tmp_path))


def test_the_page_shows_what_the_command_says() -> None:
    page = PAGE.read_text()
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        for shown in re.split(r"(?=^\$ gmr size )", block, flags=re.MULTILINE):
            command, _, said = shown.partition("\n")
            if command:
                assert said == size(*command.split()[3:]), command
