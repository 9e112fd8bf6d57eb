"""An adapter is served beside a base only where both engines apply each of its tensors and
options."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save, save_file

from model_store.adapters.folder import (
    READ_OUT,
    ROWS,
    TEMPLATE,
    canonical,
    read_adapter,
    with_sorted_metadata,
)
from model_store.checkpoint import resolve, resolve_adapter
from model_store.folders.covered_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from model_store.manifest import CheckpointUnusable
from model_store.networks.qwen2_5_vl import QWEN2_5_VL
from service.worker.app import create_worker
from service.worker.engines.loading import create_engine
from service.worker.settings import WorkerSettings
from tests.conftest import TINY
from tests.worker.engines.vllm.adapters import dated, make_adapter

LANGUAGE = "base_model.model.model.language_model.layers.0."
FIRST = f"{LANGUAGE}self_attn.q_proj.lora_A.weight"
BASE = resolve(str(TINY))
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of all projections that fits gmr-tiny."""
    folder = tmp_path_factory.mktemp("adapters") / "sound"
    make_adapter(folder, 4, 1)
    return folder


@pytest.fixture
def changed(sound: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy with other tensors, other options, or other metadata."""

    def make(
        change: Callable[[Tensors], object] = len,
        header: dict[str, str] | None = None,
        **options: Any,
    ) -> Path:
        folder = Path(shutil.copytree(sound, tmp_path / "changed"))
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        change(tensors)
        save_file(tensors, folder / ADAPTER_WEIGHTS, header)
        stated = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")) | options
        (folder / ADAPTER_CONFIG).write_text(json.dumps(stated), encoding="utf-8")
        return folder

    return make


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointUnusable) as caught:
        resolve_adapter("legal", folder, model=BASE)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(folder.parent) not in sentence
    return sentence


def moved(old: str, new: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            if old in name:
                tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def put(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: torch.zeros(shape, dtype=dtype)})


def test_names_of_peft_today_and_of_2025_are_accepted(sound: Path, tmp_path: Path) -> None:
    assert resolve_adapter("legal", sound, model=BASE).rank == 4
    old = dated(sound, tmp_path / "old")
    assert resolve_adapter("legal", old, model=BASE).rank == 4
    assert read_adapter(old).dated(QWEN2_5_VL)
    assert not read_adapter(sound).dated(QWEN2_5_VL)


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {
            "lora_dropout": 0.1,
            "peft_version": "0.21.2",
            "qalora_group_size": 16,
            "megatron_core": "megatron.core",
        },
        {
            "use_dora": False,
            "modules_to_save": None,
            "rank_pattern": {},
            "an_option_of_tomorrow": None,
        },
        {"target_modules": r".*\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_options_that_both_engines_apply_are_accepted(
    changed: Callable[..., Path], options: dict[str, Any]
) -> None:
    resolve_adapter("legal", changed(**options), model=BASE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            moved("model.model.language_model.layers.", "model.layers."),
            "base_model.model.layers.0.mlp.down_proj.lora_A.weight",
        ),
        (moved("self_attn.q_proj", "attention.wq"), f"{LANGUAGE}attention.wq.lora_A.weight"),
        (
            moved("base_model.model.", ""),
            "model.language_model.layers.0.mlp.down_proj.lora_A.weight",
        ),
        (
            moved("lora_A.weight", "lora_A.default.weight"),
            f"{LANGUAGE}mlp.down_proj.lora_A.default.weight",
        ),
        (moved("layers.3.", "layers.4."), "layers.4.mlp.down_proj.lora_A.weight"),
        (
            put(f"{LANGUAGE}self_attn.q_proj.lora_magnitude_vector", 256),
            "q_proj.lora_magnitude_vector",
        ),
        (put(f"{LANGUAGE}self_attn.q_proj.bias", 256), "q_proj.bias"),
        (put("base_model.model.score.weight", 1, 256), "score.weight"),
    ],
)
def test_a_tensor_that_the_network_lacks_is_named(
    changed: Callable[..., Path], change: Any, named: str
) -> None:
    sentence = refusal(changed(change))
    assert sentence.startswith("legal: the network has no place for ")
    assert named in sentence


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base_model.model.model.visual.blocks.0.mlp.gate_proj.lora_A.weight", "the vision tower"),
        ("base_model.model.visual.blocks.0.mlp.gate_proj.lora_A.weight", "the vision tower"),
        ("base_model.model.lm_head.lora_A.weight", "the vocabulary"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "the vocabulary"),
    ],
)
def test_a_tensor_of_a_part_that_is_never_adapted_is_named(
    changed: Callable[..., Path], name: str, part: str
) -> None:
    assert refusal(changed(put(name, 4, 256))) == (
        f"legal: {name} adapts {part}, which is not done beside a base; merge the adapter with"
        " `gmr publish`."
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            put(FIRST, 4, 255),
            f"legal: {FIRST} has the shape 4 x 255, and rank 4 on this base needs 4 x 256.",
        ),
        (
            put(FIRST, 8, 256),
            f"legal: {FIRST} has the shape 8 x 256, and rank 4 on this base needs 4 x 256.",
        ),
        (
            put(FIRST),
            f"legal: {FIRST} has the shape of one number, and rank 4 on this base needs 4 x 256.",
        ),
        (
            put(FIRST, 4, 256, dtype=torch.int8),
            f"legal: {FIRST} holds neither float32 nor float16 nor bfloat16.",
        ),
        (lambda tensors: tensors.pop(FIRST), f"legal lacks {FIRST}."),
        (
            lambda tensors: [tensors.pop(FIRST.replace("_A", half)) for half in ("_A", "_B")],
            f"legal lacks {FIRST}, which its target_modules name.",
        ),
        (lambda tensors: tensors.clear(), "legal has no tensors."),
        (
            put("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 4, 256),
            "are the same tensor.",
        ),
    ],
)
def test_shapes_and_missing_tensors(
    changed: Callable[..., Path], change: Any, sentence: str
) -> None:
    assert sentence in refusal(changed(change))


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"modules_to_save": ["score"]},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"rank_pattern": {"q_proj": 8}},
        {"alpha_pattern": {"q_proj": 8}},
        {"layer_replication": [[0, 2], [1, 4]]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["a"]},
        {"use_qalora": True},
        {"alora_invocation_tokens": [1]},
        {"init_lora_weights": "pissa"},
        {"an_option_of_tomorrow": 1},
    ],
)
def test_an_option_that_an_engine_would_ignore_is_named(
    changed: Callable[..., Path], option: dict[str, Any]
) -> None:
    sentence = refusal(changed(**option))
    assert sentence.startswith("legal: ")
    assert next(iter(option)) in sentence
    assert "`gmr publish`" in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"r": 0}, "the rank r must be from 1 to 512."),
        ({"r": True}, "the rank r must be from 1 to 512."),
        ({"r": 513}, "the rank r must be from 1 to 512."),
        ({"lora_alpha": None}, "lora_alpha must be a finite number."),
        ({"lora_alpha": float("inf")}, "lora_alpha must be a finite number."),
        ({"peft_type": "IA3"}, "is not that of a LoRA adapter."),
        ({"target_modules": "("}, "target_modules is no regular expression."),
        ({"target_modules": None}, "target_modules must be a list or a regular expression."),
    ],
)
def test_settings_that_are_invalid(
    changed: Callable[..., Path], options: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(changed(**options))


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (
            {READ_OUT: "yes"},
            "legal was trained for the score yes, and the base's score is yes - no",
        ),
        ({ROWS: "random"}, "legal was trained with a head of its own (random)"),
        (
            {TEMPLATE: "document-first"},
            "legal was trained with the template document-first, and the base's template is code",
        ),
    ],
)
def test_another_score_than_the_bases_is_refused(
    changed: Callable[..., Path], header: dict[str, str], sentence: str
) -> None:
    assert sentence in refusal(changed(header=header))


def test_names_of_2025_are_those_of_today_and_back() -> None:
    for module in (
        "model.language_model.layers.0.mlp.up_proj",
        "model.visual.merger.mlp.0",
        "lm_head",
    ):
        today = f"base_model.model.{module}.lora_A.weight"
        old = f"base_model.model.{QWEN2_5_VL.oldest_name(module)}.lora_A.weight"
        assert canonical(old, QWEN2_5_VL) == canonical(today, QWEN2_5_VL) == today


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=5), st.integers(1, 9))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_sorting_the_metadata_changes_nothing_else(header: dict[str, str], count: int) -> None:
    tensors = {f"t{number}": torch.arange(number, dtype=torch.float32) for number in range(count)}
    content = with_sorted_metadata(save(tensors, header))
    assert content == with_sorted_metadata(content)
    assert content == with_sorted_metadata(save(tensors, dict(reversed(header.items()))))

    loaded = load(content)
    assert loaded.keys() == tensors.keys()

    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)


def test_the_torch_engine_logs_the_refusal_at_start(
    changed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = changed(moved("self_attn.q_proj", "attention.wq"))

    async def start() -> None:
        failed = asyncio.Event()
        settings = WorkerSettings(model=str(TINY), adapters={"legal": folder})
        app = create_worker(settings, create_engine(settings), on_failure=failed.set)
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(failed.wait(), 60)

    asyncio.run(start())
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    missing = f"{LANGUAGE}attention.wq.lora_A.weight"

    assert error.getMessage() == f"legal: the network has no place for {missing}."
